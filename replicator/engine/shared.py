"""Resources that the replicators of one process share, so that each further one costs little.

Owns: the stores, the threads that watch files and run periodic tasks, and the limits on
concurrent work. One database and five hundred take the same path: a replicator that shares
nothing gets resources of its own.
"""

from __future__ import annotations

import threading
from typing import Self

from replicator.store.address import StoreAddress
from replicator.store.pool import SharedStores
from replicator.system.limiter import CapacityLimiter
from replicator.system.scheduler import Scheduler
from replicator.system.watch import FileWatcher

CAPTURES = 4  # cuts at once: compressing one takes tens of megabytes, and there are few cores
JOINS = 4  # databases at once that compare themselves with their archive, or take a snapshot
APPENDS = 16  # segments at once on their way to one endpoint


class EndpointLimits:
    """Limits on concurrent work with one endpoint, so that an endpoint that hangs does not
    block the databases of another one."""

    def __init__(self) -> None:
        self.joins = CapacityLimiter(JOINS)
        self.appends = CapacityLimiter(APPENDS)


class SharedResources:
    """Given to every replicator that shares them; :meth:`close` after the last has stopped."""

    def __init__(self) -> None:
        self.stores = SharedStores()
        self.file_watcher = FileWatcher()
        self.scheduler = Scheduler()
        # A scheduler of its own: it reports calls that hang, also in the threads of the other.
        self.alarms = Scheduler("replicator-attention", most=1)
        self.captures = CapacityLimiter(CAPTURES)
        self.ending = threading.Event()  # a start that waits for its store gives up
        self._endpoints: dict[str, EndpointLimits] = {}
        self._lock = threading.Lock()

    def endpoint(self, address: StoreAddress) -> EndpointLimits:
        """The limits of the address's endpoint."""
        with self._lock:
            name = address.endpoint_url or address.path or f"{address.scheme} {address.region}"
            return self._endpoints.setdefault(name, EndpointLimits())

    def close(self) -> None:
        self.ending.set()
        self.file_watcher.stop()
        self.scheduler.stop()
        self.alarms.stop()
        self.stores.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
