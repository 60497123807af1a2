"""One transaction of a block, on any connection of the standard library.

The writers of one process queue for the write lock of a database here: SQLite makes them poll, up
to 100 ms apart, and gives the lock to any of them.

Owns: the begin and the end of the transaction in each mode of ``sqlite3``. Refuses: a block inside
another one of the same connection, whose end would commit half of the outer one.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from replicator.errors import ReplicatorError


class Turns:
    """The queues of this process, one per database."""

    def __init__(self) -> None:
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._turns: dict[Path, threading.Lock] = {}
        self.blocks: set[int] = set()  # id of each connection that has a block

    @contextlib.contextmanager
    def turn(self, database: Path, seconds: float) -> Iterator[None]:
        """Waits for the writers before this one, for ``seconds`` at most; then SQLite decides."""
        with self._lock:
            turn = self._turns.setdefault(database, threading.Lock())
        mine = turn.acquire(timeout=seconds)
        try:
            yield
        finally:
            if mine:
                turn.release()


_turns = Turns()


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection, database: Path) -> Iterator[None]:
    """Commits at the end of the block, rolls back after an exception. ``database`` names the
    queue. The errors of ``sqlite3``; code ``nested_block``."""
    with _single(connection), contextlib.ExitStack() as held:
        if not connection.in_transaction:
            held.enter_context(_turns.turn(database, busy_timeout(connection)))
            connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            end(connection, "COMMIT")
        except BaseException:
            end(connection, "ROLLBACK")
            raise


@contextlib.contextmanager
def _single(connection: sqlite3.Connection) -> Iterator[None]:
    if id(connection) in _turns.blocks:
        raise ReplicatorError(
            "the connection is inside a durable block already",
            code="nested_block",
            hint="use one block for the whole transaction",
        )
    _turns.blocks.add(id(connection))
    try:
        yield
    finally:
        _turns.blocks.discard(id(connection))


def end(connection: sqlite3.Connection, statement: str) -> None:
    """``COMMIT`` or ``ROLLBACK``, if a transaction is open."""
    if not connection.in_transaction:
        return
    if getattr(connection, "autocommit", None) is False:  # PEP 249: the next one begins at once
        (connection.commit if statement == "COMMIT" else connection.rollback)()
    else:
        connection.execute(statement)


def busy_timeout(connection: sqlite3.Connection) -> float:
    """In seconds."""
    cursor = connection.cursor()
    cursor.row_factory = None
    ((milliseconds,),) = cursor.execute("PRAGMA busy_timeout").fetchall()
    return float(milliseconds) / 1000
