"""The blocks in which an application reads or writes.

A block of reads sees one state of the database from its first statement to its end. A block of
writes is one transaction, begun with ``BEGIN IMMEDIATE``: it waits for its turn at its beginning,
and then no statement in it can find the database locked. A block within a block of the same thread
is a savepoint.

Owns begin, commit, roll back, and the state of the thread during a block. Refuses to touch the
connection of a parent process.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from types import TracebackType

from replicator.app.connections import Connections
from replicator.app.lifecycle import Lifecycle
from replicator.app.retry import Retries
from replicator.errors import ConfigError, ReplicatorError


class ReadBlock:
    """``with db.read() as connection``."""

    __slots__ = ("_connections", "_joined", "_process", "_running")

    def __init__(self, connections: Connections, lifecycle: Lifecycle) -> None:
        self._connections = connections
        self._running = lifecycle.running("read", "read()")

    def __enter__(self) -> sqlite3.Connection:
        self._running.__enter__()
        try:
            return self._begin()
        except BaseException as error:
            self._running.__exit__(type(error), error, None)
            raise

    def _begin(self) -> sqlite3.Connection:
        mine = self._connections.mine
        self._process = os.getpid()
        joined = mine.writer or mine.reader
        self._joined = joined is not None
        if joined is not None:
            return joined
        connection = self._connections.take_reader()
        connection.execute("BEGIN")
        mine.reader = connection
        return connection

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process != os.getpid():
            return  # the parent process ends it
        try:
            if not self._joined:
                self._end()
        finally:
            self._running.__exit__(kind, error, trace)

    def _end(self) -> None:
        mine = self._connections.mine
        connection, mine.reader = mine.reader, None
        assert connection is not None
        try:
            connection.rollback()
        except BaseException:
            self._connections.readers.discard(connection)
            raise
        self._connections.readers.give(connection)


class WriteBlock:
    """``with db.transaction() as connection``. ``durable`` is called before the transaction; it
    returns a function to call after the commit, when other threads may write again."""

    __slots__ = ("_connections", "_durable", "_lifecycle", "_nested", "_owner", "_process",
                 "_retries", "_running", "_wait")  # fmt: skip

    def __init__(
        self,
        connections: Connections,
        lifecycle: Lifecycle,
        retries: Retries,
        durable: Callable[[], Callable[[], None]] | None = None,
    ) -> None:
        self._connections = connections
        self._lifecycle = lifecycle
        self._retries = retries
        self._durable = durable
        self._wait: Callable[[], None] | None = None
        self._running = lifecycle.running("transaction", "transaction()")

    def __enter__(self) -> sqlite3.Connection:
        self._running.__enter__()
        try:
            self._process = os.getpid()
            writer = self._connections.mine.writer
            self._owner = writer is None
            self._nested = writer is not None and writer.in_transaction
            return self._enter_inner() if self._nested else self._enter_outer()
        except BaseException as error:
            self._running.__exit__(type(error), error, None)
            raise

    def _enter_outer(self) -> sqlite3.Connection:
        if self._durable is not None:
            self._wait = self._durable()
        connection = self._connections.mine.writer or self._connections.take_writer()
        try:
            begin(connection, self._retries, self._lifecycle.repeated)
        except BaseException:
            self._release()
            raise
        return connection

    def _release(self) -> None:
        """Let other threads write, unless a function around this block still does."""
        if self._owner:
            self._connections.give_writer()

    def _enter_inner(self) -> sqlite3.Connection:
        if self._durable is not None:
            raise ConfigError(
                "a durable transaction cannot be part of another transaction",
                setting="durable",
                code="nested_durable",
                hint="make the outer transaction durable",
            )
        mine = self._connections.mine
        assert mine.writer is not None
        mine.writer.execute(f"SAVEPOINT kit_{mine.depth + 1}")
        mine.depth += 1
        return mine.writer

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process != os.getpid():
            raise ReplicatorError(
                "a transaction of the parent process cannot end in this one",
                code="forked",
                hint="fork outside of transactions",
            )
        failure = error
        try:
            if self._nested:
                self._exit_inner(error)
            else:
                self._exit_outer(error)
        except BaseException as late:
            failure = late
            raise
        finally:
            self._running.__exit__(type(failure) if failure else None, failure, trace)

    def _exit_inner(self, error: BaseException | None) -> None:
        mine = self._connections.mine
        name, mine.depth = f"kit_{mine.depth}", mine.depth - 1
        connection = mine.writer
        assert connection is not None
        if not connection.in_transaction:
            return  # the block, or the failed statement, ended the whole transaction
        if error is not None:
            connection.execute(f"ROLLBACK TO {name}")
        connection.execute(f"RELEASE {name}")

    def _exit_outer(self, error: BaseException | None) -> None:
        connection = self._connections.mine.writer
        assert connection is not None
        try:
            if error is None:
                commit(connection, self._retries, self._lifecycle.repeated)
            else:
                connection.rollback()
        finally:
            self._release()
        if error is None and self._wait is not None:
            self._wait()


def begin(connection: sqlite3.Connection, retries: Retries, repeated: Callable[[], None]) -> None:
    """Begin a transaction that may write; waits for other processes as long as ``retries`` and
    the busy timeout permit."""
    retries.run(lambda: connection.execute("BEGIN IMMEDIATE").close(), repeated)


def commit(connection: sqlite3.Connection, retries: Retries, repeated: Callable[[], None]) -> None:
    """Commit; if that fails, nothing of the transaction is left. A transaction that the block
    has committed itself is fine: pandas does so."""
    try:
        retries.run(connection.commit, repeated)
    except BaseException:
        connection.rollback()
        raise
