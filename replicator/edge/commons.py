"""What the replicators of one process share, so that a further one costs little.

Owns: the stores, the threads that look after files and run errands, and how much goes on at once.
A replicator that is given none has one of its own, so one database and five hundred take the same
path.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .errands import Errands
from .store.base import StoreTarget
from .store.shared import SharedStores
from .watch import Lookout

CAPTURES = 4  # cuts at once: compressing one takes tens of megabytes, and there are few cores
JOINS = 4  # databases at once that compare themselves with their log, or take a snapshot
APPENDS = 16  # segments at once on their way to one endpoint
POLL = 1.0  # seconds between two looks whether somebody who waits for his turn gave up


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


class Lane:
    """What goes on at once with one endpoint: one that hangs keeps no other one waiting."""

    def __init__(self) -> None:
        self.joins = Turns(JOINS)
        self.appends = Turns(APPENDS)


class Commons:
    """Shared by all replicators that are given it; :meth:`close` when the last has stopped."""

    def __init__(self) -> None:
        self.stores = SharedStores()
        self.lookout = Lookout()
        self.errands = Errands()
        # Of its own: whatever hangs in the other one's threads, somebody must say that it does.
        self.alarms = Errands("replicator-attention", most=1)
        self.captures = Turns(CAPTURES)
        self._lanes: dict[str, Lane] = {}
        self._lock = threading.Lock()

    def lane(self, target: StoreTarget) -> Lane:
        """That of the target's endpoint."""
        with self._lock:
            return self._lanes.setdefault(target.endpoint_url or target.scheme, Lane())

    def close(self) -> None:
        self.lookout.stop()
        self.errands.stop()
        self.alarms.stop()
        self.stores.close()
