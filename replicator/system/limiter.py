"""A limit on how many threads do one kind of work at the same time.

Owns: the count. Refuses: to keep a cancelled caller waiting.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

POLL = 1.0  # seconds between two checks whether a waiting caller was cancelled


class CapacityLimiter:
    """At most ``total`` slots are taken at once; further callers wait for one."""

    def __init__(self, total: int, *, poll: float = POLL) -> None:
        self._free = threading.Semaphore(total)
        self._poll = poll

    @contextmanager
    def slot(self, cancelled: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Hold a slot for the length of the block. If cancelled, enters without a slot; the
        caller checks."""
        while not (acquired := self._free.acquire(timeout=self._poll)) and not cancelled():
            pass
        try:
            yield
        finally:
            if acquired:
                self._free.release()

    def try_acquire(self) -> bool:
        """Take a slot if one is free now; give it back with :meth:`release`."""
        return self._free.acquire(blocking=False)

    def release(self) -> None:
        self._free.release()
