"""The handle for asyncio: each call runs in a thread of its own, and the event loop stays free.

``asyncio.to_thread`` would not do: its few threads are the application's, and the end of a program
waits for all of them. anyio would add a dependency for the same threads.

Owns: the way of a result from a thread to the loop, and the end of a cancelled call. Refuses: a
second version of what the blocking handle does.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, InvalidStateError
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from replicator.config.settings import SqliteReplicatorConfig
from replicator.errors import Cancelled
from replicator.handle.events import EventStream
from replicator.model import (
    Position,
    Repair,
    ReplicationEvent,
    ReplicationStatus,
    RestoreReport,
)
from replicator.sidecar.control_client import ask

if TYPE_CHECKING:
    from replicator.handle.handle import SqliteReplicator

T = TypeVar("T")


class AsyncSqliteReplicator:
    """:class:`replicator.SqliteReplicator` for asyncio: what ``async with`` of that one gives, as
    ``blocking``.

    A cancelled call ends at once for the caller, and what it began continues in its thread where
    that is harmless (``flush``, ``snapshot``, ``mark``, ``repair``). A cancelled ``restore`` is
    stopped; ``start`` and ``stop`` come to their end first.
    """

    def __init__(self, blocking: SqliteReplicator) -> None:
        self.blocking = blocking

    @property
    def config(self) -> SqliteReplicatorConfig:
        return self.blocking.config

    async def enter(self) -> Self:
        try:
            await self.start()
        except asyncio.CancelledError:
            await _to_the_end(self.blocking.stop)
            raise
        return self

    async def exit(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await _to_the_end(partial(self.blocking.__exit__, kind, error, trace))

    async def start(self) -> None:
        await _to_the_end(self.blocking.start)

    async def stop(self) -> None:
        await _to_the_end(self.blocking.stop)

    async def flush(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - that of the blocking call
        *,
        snapshot: bool = False,
    ) -> Position:
        return await _in_thread(partial(self.blocking.flush, timeout, snapshot=snapshot))

    async def snapshot(self, timeout: float | None = None) -> int:  # noqa: ASYNC109 - as above
        return await _in_thread(partial(self.blocking.snapshot, timeout))

    async def mark(
        self,
        name: str,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
        *,
        note: str = "",
        move: bool = False,
    ) -> Position:
        return await _in_thread(partial(self.blocking.mark, name, timeout, note=note, move=move))

    async def repair(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
        reason: str = "requested",
    ) -> Repair:
        return await _in_thread(partial(self.blocking.repair, timeout, reason))

    async def restore(self, **options: Any) -> RestoreReport | None:
        """As the blocking ``restore()``. A cancellation stops it; the old file is whole then, and
        the parts that were downloaded are kept for the next attempt."""
        cancelled = threading.Event()
        listener = options.pop("progress", None)

        def progress(now: Any) -> None:
            if cancelled.is_set():
                raise Cancelled("the restore was cancelled")
            if listener is not None:
                listener(now)

        call = partial(self.blocking.restore, progress=progress, **options)
        return await _to_the_end(call, cancelled.set)

    async def status(self) -> ReplicationStatus:
        return await _in_thread(self.blocking.status)

    async def events(self, *, past: bool = False) -> AsyncIterator[ReplicationEvent]:
        """As the blocking ``events()``: from the first ``anext()`` on."""
        stream = EventStream(partial(ask, self.config.cache), past=past)
        while self.blocking.started:
            for event in await _in_thread(stream.next):
                yield event


async def _in_thread(call: Callable[[], T]) -> T:
    """The result of a call in a thread of its own. A cancelled caller leaves the thread alone; the
    end of the program does not wait for it."""
    return await _begun(call)


async def _to_the_end(call: Callable[[], T], cancel: Callable[[], object] = lambda: None) -> T:
    """As :func:`_in_thread`; a cancellation calls ``cancel``, and is raised after the end of the
    call."""
    future = _begun(call)
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
            cancel()
    if cancelled is not None:
        if (failure := future.exception()) is not None:
            cancelled.add_note(f"the call ended with {failure!r}")
        raise cancelled
    return future.result()


def _begun(call: Callable[[], T]) -> asyncio.Future[T]:
    future: Future[T] = Future()

    def run() -> None:
        with contextlib.suppress(InvalidStateError):  # it was cancelled
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - the caller gets it
                future.set_exception(error)

    threading.Thread(target=run, name="replicator-aio", daemon=True).start()
    return asyncio.wrap_future(future)
