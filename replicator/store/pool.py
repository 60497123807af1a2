"""Stores that several replicators of one process share: one client for each bucket.

A client costs megabytes and connections, and reads the credentials separately. Owns the stores it
opened. Refuses to close one of them before all.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace

from replicator.store.address import StoreAddress
from replicator.store.base import Store
from replicator.store.registry import open_store

POOL = 64  # connections kept; far more than a process uses at the same time, see engine/shared.py


class SharedStores:
    """Opens each store once for all prefixes; :meth:`close` closes them all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stores: dict[StoreAddress, Store] = {}

    def open(self, address: StoreAddress) -> Store:
        """The store at ``address``. The caller must not close it."""
        bucket = replace(address, prefix="")
        with self._lock:
            if bucket not in self._stores:
                self._stores[bucket] = open_store(bucket, pool=POOL)
            return self._stores[bucket]

    def close(self) -> None:
        with self._lock, contextlib.ExitStack() as closing:
            for store in self._stores.values():
                closing.callback(store.close)
            self._stores = {}
