"""Threads in which the databases of a fleet start, so that none waits for the store of another.

Owns: a few threads for each endpoint, and which starts are under way. Refuses: to retry, and to
judge an error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

from replicator.engine.shared import EndpointLimits, SharedResources
from replicator.sidecar.member import Member

STARTS = 4  # databases of one endpoint that start or are restored at the same time


class Starts:
    """Used by the threads of a fleet."""

    def __init__(self, shared: SharedResources, ended: threading.Event) -> None:
        """Once ``ended`` is set, no further start begins."""
        self._shared = shared
        self._ended = ended
        self._lock = threading.Lock()
        self._pools: dict[EndpointLimits, ThreadPoolExecutor] = {}
        self._under_way: set[Member] = set()

    def __bool__(self) -> bool:
        """True while a start is under way."""
        return bool(self._under_way)

    def each(self, work: Callable[[Member], bool], members: Sequence[Member]) -> list[Member]:
        """The members for which ``work`` returned True. Raises the first error; the other work
        has no purpose then, and ends soon."""
        done = {member: self._pool(member).submit(work, member) for member in members}
        wait(done.values(), return_when=FIRST_EXCEPTION)
        failed = [each for each in done.values() if each.done() and each.exception() is not None]
        if failed:
            self._shared.ending.set()
            for each in done.values():
                each.cancel()
            failed[0].result()
        return [member for member in members if done[member].result()]

    def begin(self, member: Member, start: Callable[[], None]) -> None:
        """Calls ``start`` soon, unless a start of the member is under way, or all have ended."""
        with self._lock:
            if member in self._under_way or self._ended.is_set():
                return
            self._under_way.add(member)
            self._pool(member).submit(self._run, member, start)

    def _pool(self, member: Member) -> ThreadPoolExecutor:
        endpoint = self._shared.endpoint(member.config.address)
        if endpoint not in self._pools:
            self._pools[endpoint] = ThreadPoolExecutor(STARTS, "replicator-start")
        return self._pools[endpoint]

    def _run(self, member: Member, start: Callable[[], None]) -> None:
        try:
            if not self._ended.is_set():
                start()
        finally:
            self._under_way.discard(member)

    def close(self) -> None:
        """Waits for the starts under way."""
        for pool in self._pools.values():
            pool.shutdown(cancel_futures=True)
