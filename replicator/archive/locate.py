"""From an address to one database: the open store, and the prefix.

Owns the choice where the address names no prefix, and the error for an address without a backup.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from replicator.archive.listing import find_databases
from replicator.errors import ConfigError, NoBackup, StoreUnavailable
from replicator.store.address import StoreAddress
from replicator.store.base import Store
from replicator.store.registry import open_store
from replicator.store.retry import COMMAND_RETRIES, RetryingStore, RetryPolicy

MOST_NAMED = 100  # databases of a bucket in one message


@contextlib.contextmanager
def open_archive(address: StoreAddress) -> Iterator[tuple[Store, str]]:
    """A store that retries, and the prefix of one database; see :func:`sole_database`."""
    with open_bucket(address, COMMAND_RETRIES) as store:
        yield store, address.prefix or sole_database(store)


@contextlib.contextmanager
def open_bucket(
    address: StoreAddress,
    policy: RetryPolicy,
    on_failure: Callable[[StoreUnavailable], None] = lambda _: None,
) -> Iterator[Store]:
    """A store that retries, closed at the end."""
    with contextlib.closing(open_store(address)) as store:
        yield RetryingStore(store, policy, on_failure=on_failure)


def sole_database(store: Store) -> str:
    """The prefix of the only database in a bucket. ``NoBackup`` if there is none, ``ConfigError``
    if there are several to choose from. One at the root of the bucket has no prefix by which to
    choose it, so it counts as the only one."""
    choices = find_databases(store, nested=False)
    if not choices:
        raise no_backup(url_of(store))
    if len(choices) > 1:
        names = [*choices[:MOST_NAMED], *(["…"] if len(choices) > MOST_NAMED else [])]
        raise ConfigError(
            f"the bucket holds {len(choices)} databases: {', '.join(names)}",
            hint="choose one with --prefix",
            setting="prefix",
            code="several_databases",
        )
    return choices[0]


def url_of(store: Store, prefix: str = "") -> str:
    """The URL of one database, for people."""
    root = store.url if store.url.endswith("/") else f"{store.url}/"
    return f"{root}{prefix}" if prefix else store.url


def no_backup(url: str) -> NoBackup:
    """The error for an address without a backup."""
    return NoBackup(f"no backup at {url}", url=url, hint="check the bucket and the prefix")
