"""At most so many things at once; the others wait."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

POLL = 1.0  # seconds between two checks whether a waiting caller was cancelled


class Turns:
    """At most so many at once; the others wait."""

    def __init__(self, most: int) -> None:
        self._free = threading.Semaphore(most)

    @contextmanager
    def taken(self, given_up: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Have a turn for the length of the block. Whoever gave up goes on without one, to find
        that out by himself."""
        while not (taken := self._free.acquire(timeout=POLL)) and not given_up():
            pass
        try:
            yield
        finally:
            if taken:
                self._free.release()

    def take(self) -> bool:
        """Have a turn if there is one now; it is given back with :meth:`give_back`."""
        return self._free.acquire(blocking=False)

    def give_back(self) -> None:
        self._free.release()
