"""Opens the store of an address.

Owns the choice of the implementation by the address's scheme. A new kind of store is one module
with ``open_address`` and one line in :data:`.address.SCHEMES`. Refuses to import an implementation
before it is needed: boto3 costs a tenth of a second.
"""

from __future__ import annotations

import importlib

from replicator.store.address import SCHEMES, StoreAddress
from replicator.store.base import Store
from replicator.store.sealed import sealed


def open_store(address: StoreAddress, *, pool: int = 16) -> Store:
    """The store at ``address``. Sends no request yet, so the store need not be reachable.

    ``pool`` is the number of threads that may use it at the same time.
    """
    store: Store = importlib.import_module(SCHEMES[address.scheme]).open_address(address, pool)
    return sealed(store, address.integrity)
