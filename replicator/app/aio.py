"""Durable commits for asyncio: each wait leaves the event loop free.

    async with SqliteReplicator(config) as replicator:
        async with durable(connection):
            connection.execute("INSERT INTO orders ...")
        await replicator.flush()

A wait is a future of the shared request, see :mod:`.waiters`, and takes no thread. Owns: the queue
of the tasks for the write lock. Refuses: to use a connection in another thread than the caller's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from weakref import WeakKeyDictionary

from replicator.app.durable import (
    DurableCommit,
    OnDegraded,
    OnFailure,
    Waiting,
    require_contained,
)
from replicator.app.place import Named, place_of
from replicator.app.transaction import busy_timeout, transaction
from replicator.app.waiters import Waiter, late, registry
from replicator.errors import ReplicatorError
from replicator.handle.handle import SqliteReplicator
from replicator.model import Position

__all__ = ["SqliteReplicator", "durable", "wait_durable"]


async def wait_durable(
    named: Named,
    position: Position | None = None,
    timeout: float | None = 2.0,  # noqa: ASYNC109 - the time of the shared request, as in `durable`
    *,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Position:
    """As :func:`replicator.wait_durable`. A cancelled wait leaves the others of the request."""
    waiters = registry.of(place_of(named, cache_dir))
    found = await _confirmed(waiters.add(timeout), waiters.times.grace)
    require_contained(position, found)
    return found


@contextlib.asynccontextmanager
async def durable(
    connection: sqlite3.Connection,
    timeout: float | None = 2.0,  # noqa: ASYNC109 - see above
    on_failure: OnFailure = "raise",
    *,
    on_degraded: OnDegraded | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> AsyncIterator[DurableCommit]:
    """As :func:`replicator.durable`. The connection is used in the thread of the loop; tasks of the
    loop queue for the write lock, for its busy timeout at most. A cancellation in the block rolls
    back; one during the wait leaves the transaction committed."""
    waiting = Waiting(place_of(connection, cache_dir), timeout, on_failure, on_degraded)
    async with _turn(connection, waiting.place.database):
        with transaction(connection, waiting.place.database):
            yield waiting.commit
    waiters = registry.of(waiting.place)
    try:
        waiting.succeed(await _confirmed(waiters.add(timeout), waiters.times.grace))
    except ReplicatorError as error:
        waiting.fail(error)


async def _confirmed(waiter: Waiter, grace: float) -> Position:
    try:
        return await asyncio.wait_for(asyncio.wrap_future(waiter), waiter.left(grace))
    except TimeoutError:
        raise late() from None


_Turns = dict[Path, asyncio.Lock]
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()


@contextlib.asynccontextmanager
async def _turn(connection: sqlite3.Connection, database: Path) -> AsyncIterator[None]:
    """Wait for the blocks of other tasks: a wait of SQLite would stop the loop, and so them."""
    turns = _turns.setdefault(asyncio.get_running_loop(), {})
    lock = turns.setdefault(database, asyncio.Lock())
    mine = False
    if not connection.in_transaction:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(busy_timeout(connection)):
                mine = await lock.acquire()
    try:
        yield
    finally:
        if mine:
            lock.release()
