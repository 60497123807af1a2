"""What the replicators of one process share, so that a further one costs little.

Owns: the stores, the threads that look after files and run errands, and how much goes on at once.
A replicator that is given none has one of its own, so one database and five hundred take the same
path.
"""

from __future__ import annotations

import threading

from replicator.store.base import StoreTarget
from replicator.store.pool import SharedStores
from replicator.system.limiter import Turns
from replicator.system.scheduler import Errands
from replicator.system.watch import Lookout

CAPTURES = 4  # cuts at once: compressing one takes tens of megabytes, and there are few cores
JOINS = 4  # databases at once that compare themselves with their log, or take a snapshot
APPENDS = 16  # segments at once on their way to one endpoint


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
