"""The readers of a database: connections that are opened when needed, up to a number.

Owns the free connections. The one that was returned last is given first: its cache is warm.
Refuses to make a thread wait longer than it permits.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable

from replicator.errors import DatabaseBusy


class Readers:
    """``open_one`` makes a connection. Any thread may take and give."""

    def __init__(self, open_one: Callable[[], sqlite3.Connection], most: int, wait: float) -> None:
        self._open_one = open_one
        self._wait = wait
        # A None is permission to open one. Only the ends of the list are used: pop() and append()
        # are atomic, so that a free connection costs no lock.
        self._free: list[sqlite3.Connection | None] = [None] * most
        self._most = most
        self._returned = threading.Condition()
        self._waiting = 0
        self._all: set[sqlite3.Connection] = set()

    @property
    def open(self) -> int:
        return len(self._all)

    @property
    def free(self) -> int:
        """Connections that a thread could take now, also those that are not open yet."""
        return len(self._free)

    def take(self) -> sqlite3.Connection:
        """A connection for this thread; ``DatabaseBusy`` (code ``readers_busy``) after the wait."""
        try:
            found = self._free.pop()
        except IndexError:
            found = self._take_late(time.monotonic() + self._wait)
        return found if found is not None else self._open()

    def give(self, connection: sqlite3.Connection | None) -> None:
        """Return what :meth:`take` gave; None permits to open another one."""
        self._free.append(connection)
        if self._waiting:
            with self._returned:
                self._returned.notify()

    def hold(self, until: float) -> bool:
        """Close every connection as it is returned, until that time of :func:`time.monotonic`.
        True if all are closed: then none can be taken before :meth:`release`."""
        held = 0
        try:
            while held < self._most:
                self._close(self._take_late(until))
                held += 1
        except DatabaseBusy:
            self.release(held)
            return False
        return True

    def release(self, count: int | None = None) -> None:
        """Permit to open connections again after :meth:`hold`."""
        for _ in range(self._most if count is None else count):
            self.give(None)

    def discard(self, connection: sqlite3.Connection) -> None:
        """Close what :meth:`take` gave, in place of returning it."""
        self._close(connection)
        self.give(None)

    def interrupt(self) -> None:
        """End the statements that run."""
        for each in self._all.copy():
            with contextlib.suppress(sqlite3.ProgrammingError):  # it was closed just now
                each.interrupt()

    def _close(self, connection: sqlite3.Connection | None) -> None:
        if connection is not None:
            self._all.discard(connection)
            connection.close()

    def _take_late(self, until: float) -> sqlite3.Connection | None:
        with self._returned:
            self._waiting += 1
            try:
                while not self._free:
                    if not self._returned.wait(until - time.monotonic()):
                        break
                return self._free.pop()
            except IndexError:
                raise DatabaseBusy(
                    "all connections that read are in use",
                    code="readers_busy",
                    hint="raise `readers` of the preset, or end reads sooner",
                ) from None
            finally:
                self._waiting -= 1

    def _open(self) -> sqlite3.Connection:
        try:
            connection = self._open_one()
        except BaseException:
            self.give(None)
            raise
        self._all.add(connection)
        return connection
