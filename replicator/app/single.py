"""Single statements outside of blocks: each a read, or a transaction, of its own.

Most of an application's operations are such statements, so this path is short: without hooks an
operation is counted without the context of :mod:`replicator.app.lifecycle`, which would take a
third of the time of a small read.

Owns the choice of the connection, and the repetition while another process keeps a lock. Refuses
nothing itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from time import perf_counter
from typing import TypeVar

from replicator.app.connections import Connections
from replicator.app.hooks import OperationKind
from replicator.app.lifecycle import Lifecycle
from replicator.app.retry import Retries, is_busy
from replicator.app.statements import Parameters, Written, committed, rows_of, written

T = TypeVar("T")


class SingleStatements:
    """Of one database."""

    def __init__(self, connections: Connections, lifecycle: Lifecycle, retries: Retries) -> None:
        self._connections = connections
        self._lifecycle = lifecycle
        self._retries = retries

    def fetch(self, sql: str, parameters: Parameters, take: Callable[[sqlite3.Cursor], T]) -> T:
        """The rows that ``take`` gets."""
        return self._counted("read", sql, lambda: self._fetch(sql, parameters, take))

    def write(self, sql: str, parameters: Parameters) -> Written:
        """Commits, unless this thread has a transaction."""
        return self._counted("write", sql, lambda: self._write(sql, parameters))

    def _counted(self, kind: OperationKind, sql: str, work: Callable[[], T]) -> T:
        lifecycle = self._lifecycle
        if lifecycle.hooks:
            with lifecycle.running(kind, sql):
                return work()
        began, failed = perf_counter(), True
        try:
            result = work()
            failed = False
            return result
        finally:
            lifecycle.tallies[kind].add(perf_counter() - began, failed)

    def _fetch(self, sql: str, parameters: Parameters, take: Callable[[sqlite3.Cursor], T]) -> T:
        mine = self._connections.mine
        joined = mine.writer or mine.reader
        if joined is not None:
            return rows_of(joined, sql, parameters, take)
        connection = self._connections.take_reader()
        try:
            return self._repeated(lambda: rows_of(connection, sql, parameters, take))
        finally:
            self._connections.readers.give(connection)

    def _write(self, sql: str, parameters: Parameters) -> Written:
        writer = self._connections.mine.writer
        if writer is not None:
            return written(writer, sql, parameters)
        connection = self._connections.take_writer()
        try:
            return self._repeated(lambda: committed(connection, sql, parameters))
        finally:
            self._connections.give_writer()

    def _repeated(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
        self._lifecycle.repeated()
        return self._retries.run(work, self._lifecycle.repeated)
