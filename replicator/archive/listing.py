"""The fewest requests that fill an index.

Owns every LIST of an archive, and the search for the databases of a bucket. Foreign objects are
left alone. An object that a newer version encrypted is refused, as docs/format.md demands: nothing
that leaves it out could be right about the archive.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

from replicator.archive.index import OPEN_END, SEGMENTS, ArchiveObject, SnapshotObject, WalObject
from replicator.archive.keys import Keys
from replicator.archive.names import (
    EncryptedName,
    MergeName,
    Name,
    SegmentName,
    SnapshotName,
    parse,
)
from replicator.errors import ConfigError
from replicator.store.base import ObjectInfo, Store

SEARCHERS = 16  # requests under way in a search for databases
BATCH = 1000  # folders whose answers a search holds
Entry: TypeAlias = tuple[Name, ObjectInfo]


@dataclass(frozen=True, slots=True)
class SearchLimits:
    """Of a search for databases: ``depth`` of the folders, and the number of ``folders`` without a
    database, each of which costs a request. A bucket that others fill has no end of them."""

    depth: int = 4
    folders: int = 10_000


DEFAULT_SEARCH = SearchLimits()


@dataclass(frozen=True, slots=True)
class Listed:
    """Objects of an archive. ``complete``: the listing of ``wal/`` began at its first object."""

    objects: tuple[ArchiveObject, ...]
    complete: bool


def list_all(store: Store, keys: Keys) -> tuple[ArchiveObject, ...]:
    """Segments, snapshots, merges, in this order: an object that replaces others is listed after
    them. Three listings."""
    folders = (keys.wal_dir, keys.snapshot_dir, keys.merged_dir)
    return tuple(item for folder in folders for item in _objects(store, keys, folder))


def list_for(store: Store, keys: Keys, txid: int | None, *, complete: bool = False) -> Listed:
    """The objects that a restore to ``txid`` (None: the newest) can need; or, with ``complete``,
    all of them. Three listings: that of the segments begins at the newest snapshot it can use.
    """
    snapshots = list_snapshots(store, keys)
    usable = [item.txid for item in snapshots if txid is None or item.txid <= txid]
    since = max(usable, default=0)
    complete = complete or since <= 1
    segments = list_segments(store, keys, 0 if complete else since)
    if not segments and not complete:  # the archive ends in an object that begins before
        complete, segments = True, list_segments(store, keys, 0)
    return Listed((*segments, *snapshots, *list_merges(store, keys)), complete)


def list_segments(store: Store, keys: Keys, since: int) -> tuple[WalObject, ...]:
    """The segments whose first txid is ``since`` or later, in order. One listing."""
    after = keys.wal(since - 1) if since > 0 else ""
    found = _objects(store, keys, keys.wal_dir, after)
    return tuple(item for item in found if isinstance(item, WalObject))


def list_merges(store: Store, keys: Keys) -> tuple[WalObject, ...]:
    """One listing."""
    found = _objects(store, keys, keys.merged_dir)
    return tuple(item for item in found if isinstance(item, WalObject))


def list_snapshots(store: Store, keys: Keys) -> tuple[SnapshotObject, ...]:
    """One listing."""
    found = _objects(store, keys, keys.snapshot_dir)
    return tuple(item for item in found if isinstance(item, SnapshotObject))


def newest_segment(store: Store, keys: Keys) -> WalObject | None:
    """The newest object in ``wal/``, searched from the newest snapshot on; None: there is none.
    Two listings, three if no segment follows that snapshot."""
    newest = max((item.txid for item in list_snapshots(store, keys)), default=0)
    found = list_segments(store, keys, newest) or list_segments(store, keys, 0)
    return found[-1] if found else None


def entries(store: Store, keys: Keys, folder: str, after: str = "") -> Iterator[Entry]:
    """Everything of ours in a folder (:attr:`Keys.root`: all of it), records included. One
    listing; ``ConfigError`` at an encrypted object."""
    for info in store.list(folder, start_after=after):
        name = parse(keys, info.key)
        if isinstance(name, EncryptedName):
            raise ConfigError(
                f"{info.key} is encrypted, which this version cannot read", code="encrypted"
            )
        if name is not None:
            yield name, info


def to_object(name: Name, info: ObjectInfo) -> ArchiveObject | None:
    """The object with that name, as a listing shows it; None for records."""
    match name:
        case SegmentName(first):
            return WalObject(info.key, SEGMENTS, first, OPEN_END, info.size, info.modified_ms)
        case MergeName(level, first, last):
            return WalObject(info.key, level, first, last, info.size, info.modified_ms)
        case SnapshotName(txid, generation):
            return SnapshotObject(info.key, txid, generation, info.size, info.modified_ms)
    return None


def _objects(store: Store, keys: Keys, folder: str, after: str = "") -> Iterator[ArchiveObject]:
    found = (to_object(*entry) for entry in entries(store, keys, folder, after))
    return (item for item in found if item is not None)


def find_databases(
    store: Store, prefix: str = "", *, limits: SearchLimits = DEFAULT_SEARCH, nested: bool = True
) -> list[str]:
    """Prefixes below ``prefix`` that hold a database, sorted, without slashes at the ends; see
    :func:`search_databases`. A folder whose name no prefix can have is left out."""
    found = search_databases(store, prefix, limits=limits, nested=nested)
    return sorted(each for each in found if Keys(each).prefix == each)


def search_databases(
    store: Store, prefix: str = "", *, limits: SearchLimits = DEFAULT_SEARCH, nested: bool = True
) -> Iterator[str]:
    """The folders below ``prefix`` that hold a database, as they are found, without the slash at
    their end. Each costs a request.

    A folder that contains ``wal/`` or ``snapshots/`` is one. Its other folders are searched if
    ``nested``: they may hold further databases. ``ConfigError`` if the folders without a database
    are more than ``limits`` permit; databases may be any number.
    """
    level = [Keys(prefix).root]
    left = limits.folders
    with ThreadPoolExecutor(SEARCHERS, "find") as pool:
        for _ in range(limits.depth + 1):
            below: list[str] = []
            while level:
                if not left:
                    raise _too_many_folders(limits)
                batch, level = level[: min(left, BATCH)], level[min(left, BATCH) :]
                for root, folders in zip(batch, pool.map(store.folders, batch), strict=True):
                    if f"{root}wal/" in folders or f"{root}snapshots/" in folders:
                        yield root.removesuffix("/")
                        below += Keys(root).foreign(folders) if nested else ()
                    else:
                        left -= 1
                        below += folders
            level = below


def _too_many_folders(limits: SearchLimits) -> ConfigError:
    return ConfigError(
        f"the bucket holds more than {limits.folders} folders without a database",
        hint="name the database, or a folder above it, with --prefix",
        setting="prefix",
        code="too_many_folders",
    )
