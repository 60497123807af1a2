"""Bytes of objects, in parallel and in order, with bounded memory.

Owns: the threads, the size of a request, and how many bytes may be under way. Refuses to know
the meaning of the bytes. The store it is given retries transient failures.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Self, TypeVar

from replicator.format.envelope import damaged
from replicator.recovery.limits import RecoveryLimits
from replicator.recovery.progress import Meter
from replicator.store.base import Store
from replicator.system.pagefile import PageFile

T = TypeVar("T")
Job = tuple[int, Callable[[], T]]  # bytes it will hold, and the work


class Fetcher:
    """Reads from one store with a pool of threads. Use it as a context manager."""

    def __init__(self, store: Store, meter: Meter, limits: RecoveryLimits) -> None:
        self.limits = limits
        self.integrity = store.integrity
        self._store = store
        self._meter = meter
        self._pool = ThreadPoolExecutor(limits.threads, "restore")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def get(self, key: str, start: int, length: int) -> bytes:
        """Exactly ``length`` bytes; ``DamageError`` when the object is shorter."""
        data = self._store.get(key, start, length)
        self._meter.fetched(len(data))
        if len(data) != length:
            raise damaged(key, "it is shorter than its listing", code="truncated")
        return data

    def beside(self, work: Callable[[], T]) -> Future[T]:
        """Start work that no result depends on. The caller waits for its end."""
        return self._pool.submit(work)

    def in_order(self, jobs: Iterable[Job[T]]) -> Iterator[T]:
        """Results in the order of the jobs, as many at work as ``window_bytes`` allows."""
        waiting: deque[tuple[int, Future[T]]] = deque()
        held = 0
        try:
            for size, work in jobs:
                while waiting and held + size > self.limits.window_bytes:
                    done, future = waiting.popleft()
                    yield future.result()
                    del future
                    held -= done
                waiting.append((size, self._pool.submit(work)))
                held += size
            while waiting:
                yield waiting.popleft()[1].result()
        finally:
            for _, future in waiting:
                future.cancel()
            wait([future for _, future in waiting])  # so that none still writes to a file

    def spool(self, key: str, size: int, file: PageFile) -> None:
        """Copy an object into a local file."""
        step = self.limits.range_bytes

        def part(start: int) -> None:
            file.pwrite(self.get(key, start, min(step, size - start)), start)

        file.resize(size)
        for _ in self.in_order((step, partial(part, at)) for at in range(0, size, step)):
            pass
