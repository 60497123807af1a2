"""A place as a command names it: an open store that retries, and the prefix of one database."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from replicator.archive.catalog import find_databases
from replicator.errors import ConfigError, NoBackup
from replicator.store.address import StoreAddress
from replicator.store.base import Store
from replicator.store.registry import open_store
from replicator.store.retry import COMMAND_RETRIES, RetryingStore


@contextlib.contextmanager
def opened(address: StoreAddress) -> Iterator[tuple[Store, str]]:
    """``NoBackup`` if there is no database, ``ConfigError`` if there are several to choose
    from."""
    with contextlib.closing(open_store(address)) as store:
        patient = RetryingStore(store, COMMAND_RETRIES)
        yield patient, address.prefix or _the_only_one(patient, address)


def _the_only_one(store: Store, address: StoreAddress) -> str:
    choices = find_databases(store)
    if not choices:
        raise NoBackup(f"no backup at {address.url}", hint="check the bucket and the prefix")
    if len(choices) > 1:
        raise ConfigError(
            f"the bucket holds {len(choices)} databases: {', '.join(choices)}",
            hint="choose one with --prefix",
        )
    return choices[0]
