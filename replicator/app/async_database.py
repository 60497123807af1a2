"""The database for ``asyncio``: the same functions, awaited.

    async with await AsyncDatabase.open("app.db") as db:
        await db.execute("INSERT INTO users (name) VALUES (?)", ("Ada",))
        async with db.transaction() as connection:
            await connection.execute("UPDATE users SET paid = 1")

Owns the threads in which :class:`Database` works, and the hand-over. Refuses to know SQLite: there
is no second implementation. A task that is cancelled leaves no transaction open: what it had begun
ends in its thread, and a block is rolled back.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from replicator.app.blocks import ReadBlock, WriteBlock
from replicator.app.database import Database
from replicator.app.statements import Parameters, Row, Written, rows_of, written

T = TypeVar("T")
P = ParamSpec("P")
OTHERS = 8  # threads for backups, checks, durable commits, and whatever else takes long


class AsyncDatabase:
    """Around an open database; use it from one event loop."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._readers = ThreadPoolExecutor(database.preset.readers, "replicator-read")
        self._writer = ThreadPoolExecutor(1, "replicator-write")
        self._others = ThreadPoolExecutor(OTHERS, "replicator-other")

    @classmethod
    async def open(cls, path: str | os.PathLike[str], *args: Any, **options: Any) -> Self:
        """As :meth:`Database.open`, with its arguments and errors."""
        return cls(await asyncio.to_thread(Database.open, path, *args, **options))

    # ------------------------------------------------------------------- reading, writing

    async def fetch_all(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """As :meth:`Database.fetch_all`."""
        return await _in(self._readers, self.database.fetch_all, sql, parameters)

    async def fetch_one(self, sql: str, parameters: Parameters = ()) -> Row | None:
        """As :meth:`Database.fetch_one`."""
        return await _in(self._readers, self.database.fetch_one, sql, parameters)

    async def fetch_value(self, sql: str, parameters: Parameters = ()) -> Any:
        """As :meth:`Database.fetch_value`."""
        return await _in(self._readers, self.database.fetch_value, sql, parameters)

    async def execute(self, sql: str, parameters: Parameters = ()) -> Written:
        """As :meth:`Database.execute`."""
        return await _in(self._writer, self.database.execute, sql, parameters)

    async def execute_many(self, sql: str, rows: Iterable[Parameters]) -> int:
        """As :meth:`Database.execute_many`."""
        return await _in(self._writer, self.database.execute_many, sql, rows)

    async def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """``work`` runs in a thread, in a transaction."""
        return await _in(self._writer, self.database.transact, work)

    async def queued(self, sql: str, parameters: Parameters = ()) -> Written:
        """The result of a statement that goes through the queue. Waiting for room in it takes a
        thread, not the event loop."""
        future = await _in(self._others, self.database.queue.execute, sql, parameters)
        return await asyncio.wrap_future(future)

    async def run(
        self, function: Callable[Concatenate[Database, P], T], *args: P.args, **options: P.kwargs
    ) -> T:
        """The result of any function of the database: ``await db.run(Database.backup, path)``."""
        return await _in(self._others, function, self.database, *args, **options)

    # ----------------------------------------------------------------------------- blocks

    def read(self) -> AsyncBlock:
        """As :meth:`Database.read`; the block gives an :class:`AsyncConnection`."""
        return AsyncBlock(self.database.read)

    def transaction(self, *, durable: bool = False, timeout: float = 2.0) -> AsyncBlock:
        """As :meth:`Database.transaction`; the block gives an :class:`AsyncConnection`."""
        return AsyncBlock(partial(self.database.transaction, durable=durable, timeout=timeout))

    # -------------------------------------------------------------------------------- end

    async def close(self, timeout: float = 30.0) -> None:  # noqa: ASYNC109 - that of the threads
        """As :meth:`Database.close`."""
        try:
            await asyncio.to_thread(self.database.close, timeout)
        finally:
            for each in (self._readers, self._writer, self._others):
                each.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


class AsyncConnection:
    """A connection within a block. Its statements run in the thread of the block, one at a time."""

    def __init__(self, thread: Executor, connection: sqlite3.Connection) -> None:
        self._thread = thread
        self._connection = connection

    async def execute(self, sql: str, parameters: Parameters = ()) -> Written:
        """Run one statement of the block."""
        return await _in(self._thread, written, self._connection, sql, parameters)

    async def fetch_all(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """All rows of a query."""
        take = sqlite3.Cursor.fetchall
        return await _in(self._thread, rows_of, self._connection, sql, parameters, take)

    async def fetch_one(self, sql: str, parameters: Parameters = ()) -> Row | None:
        """The first row of a query, None if it has none."""
        take: Callable[[sqlite3.Cursor], Row | None] = sqlite3.Cursor.fetchone
        return await _in(self._thread, rows_of, self._connection, sql, parameters, take)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The result of ``work(connection)``."""
        return await _in(self._thread, work, self._connection)


class AsyncBlock:
    """A block of reads, or a transaction, that lives in a thread of its own: SQLite's blocks belong
    to a thread, and a task has none."""

    def __init__(self, make: Callable[[], ReadBlock | WriteBlock]) -> None:
        self._make = make

    async def __aenter__(self) -> AsyncConnection:
        self._thread = ThreadPoolExecutor(1, "replicator-block")
        self._block = self._make()
        entered = self._thread.submit(self._block.__enter__)
        try:
            connection = await asyncio.shield(asyncio.wrap_future(entered))
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                self._thread.submit(self._leave_late, entered.result, error)
            self._thread.shutdown(wait=False)
            raise
        return AsyncConnection(self._thread, connection)

    def _leave_late(self, entered: Callable[[], object], error: BaseException) -> None:
        """The task was cancelled while its thread waited for its turn."""
        entered()  # raises if there is nothing to leave
        self._block.__exit__(type(error), error, None)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        left = self._thread.submit(self._block.__exit__, kind, error, trace)
        self._thread.shutdown(wait=False)
        await asyncio.shield(asyncio.wrap_future(left))


async def _in(thread: Executor, function: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    call = partial(function, *args, **options)
    return await asyncio.get_running_loop().run_in_executor(thread, call)
