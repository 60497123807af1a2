"""Stores that several replicators of one process share: one client for each bucket.

A client costs megabytes and its own connections, and asks for credentials by itself.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace

from replicator.store.address import StoreAddress
from replicator.store.base import Store
from replicator.store.registry import open_store

POOL = 64  # connections that are kept; far more than a process uses at once, see engine/shared.py


class SharedStores:
    """Opens each store once, whatever the prefix; :meth:`close` closes them all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stores: dict[StoreAddress, Store] = {}

    def open(self, address: StoreAddress) -> Store:
        """The store behind ``address``, which its users do not close."""
        place = replace(address, prefix="")
        with self._lock:
            if place not in self._stores:
                self._stores[place] = open_store(place, pool=POOL)
            return self._stores[place]

    def close(self) -> None:
        with self._lock, contextlib.ExitStack() as closing:
            for store in self._stores.values():
                closing.callback(store.close)
            self._stores = {}
