"""The contents of an archive: generations, snapshots, restorable transactions, sizes.

Owns the summary, a pure function of one listing and the facts of some segments. It reads no object,
so it proves nothing about their bytes, nor that none is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

from replicator.archive.events import Event, event_metadata, event_of
from replicator.archive.facts import FactsReader, fits
from replicator.archive.index import (
    SEGMENTS,
    ArchiveObject,
    Index,
    PinnedPoint,
    SnapshotObject,
    WalObject,
)
from replicator.archive.keys import Keys
from replicator.archive.listing import Entry, entries, find_databases, to_object
from replicator.archive.locate import no_backup, open_bucket, url_of
from replicator.archive.pins import list_pins
from replicator.archive.reachable import Ranges, restorable, trust
from replicator.archive.records import (
    PROVEN,
    ProofRecord,
    latest,
    sorted_records,
)
from replicator.errors import NoBackup
from replicator.format.object_header import ObjectFacts
from replicator.store.address import StoreAddress
from replicator.store.base import Store
from replicator.store.retry import HISTORY_RETRIES

READERS = 8  # databases at once
BATCH = 100  # histories that are held
SLICES = 60  # of the time that an activity covers


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot object. ``stored_ms`` is when the store took it."""

    txid: int
    generation: str
    size: int
    stored_ms: int


@dataclass(frozen=True, slots=True)
class Generation:
    """A run of transactions in which each segment applies on top of the one before."""

    id: str
    first_txid: int
    last_txid: int
    snapshots: int
    size: int  # of its snapshots, bytes


@dataclass(frozen=True, slots=True)
class Activity:
    """Bytes of WAL objects that were stored in equal slices of the time from ``since_ms`` to
    ``until_ms``."""

    since_ms: int
    until_ms: int
    bytes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class History:
    """The contents of one archive, oldest first."""

    url: str
    generations: tuple[Generation, ...]
    snapshots: tuple[Snapshot, ...]
    first_txid: int  # oldest restorable
    last_txid: int  # newest restorable
    last_commit_ms: int | None  # commit time of ``last_txid``, if the store keeps metadata
    last_stored_ms: int  # when the newest WAL object was stored
    segments: int
    segment_bytes: int
    merged: int
    merged_bytes: int
    snapshot_bytes: int
    activity: Activity = field(default=Activity(0, 0, ()))
    events: tuple[Event, ...] = ()  # starts, catch-ups and take-overs, oldest first
    proofs: tuple[ProofRecord, ...] = ()  # proof records, oldest first
    restorable: Ranges = ()  # (first, last) txids, by the names; a step is its end alone
    pins: tuple[PinnedPoint, ...] = ()

    @property
    def proven(self) -> ProofRecord | None:
        """The newest drill that succeeded."""
        return latest(self.proofs, PROVEN)

    @property
    def total_bytes(self) -> int:
        return self.segment_bytes + self.merged_bytes + self.snapshot_bytes


def histories(address: StoreAddress) -> Iterator[History | NoBackup]:
    """The history of the database an address names, or of every database in the bucket when it
    names none, one after the other. ``NoBackup`` if there is none.

    A database of several that has no backup yet, or none any longer, is that error in place of a
    history.
    """
    with open_bucket(address, HISTORY_RETRIES) as store:
        if address.prefix:
            yield history(store, address.prefix, url=url_of(store, address.prefix))
            return
        prefixes = find_databases(store)
        if not prefixes:
            raise no_backup(address.url)
        if len(prefixes) == 1:
            yield history(store, prefixes[0], url=url_of(store, prefixes[0]))
            return
        with ThreadPoolExecutor(READERS, "history") as pool:
            for first in range(0, len(prefixes), BATCH):
                yield from pool.map(partial(_attempt, store), prefixes[first : first + BATCH])


def _attempt(store: Store, prefix: str) -> History | NoBackup:
    try:
        return history(store, prefix, url=url_of(store, prefix))
    except NoBackup as error:
        return error


def history(store: Store, prefix: str, *, url: str) -> History:
    """The history below a prefix: two listings, one HEAD for the newest segment, for each
    generation and for each event, one GET for each pin. ``NoBackup`` if there is none."""
    keys = Keys(prefix)
    objects: list[ArchiveObject] = []
    records: list[Entry] = []  # apart, because the objects may be millions
    for entry in entries(store, keys, keys.root):
        item = to_object(*entry)
        if item is None:
            records.append(entry)
        else:
            objects.append(item)
    index = Index.of(objects)
    reader = FactsReader(store)
    index = _with_facts(index, (reader.metadata(item) for item in telling(index)))
    first_txids = sorted(item.first for item in index.wal if item.level == SEGMENTS)
    happened = event_metadata(store, keys, first_txids)
    index = _with_facts(index, (facts for facts, _ in happened))
    return replace(
        summarise(index, url=url),
        proofs=tuple(sorted_records(records)),
        events=tuple(event_of(*told) for told in happened),
        pins=list_pins(store, keys),
    )


def telling(index: Index) -> list[WalObject]:
    """The segments worth a HEAD, oldest first: the newest, and those at which a snapshot may
    begin a generation."""
    starts = {item.txid for item in _starts(index)}
    newest = index.newest_segment
    segments = (item for item in index.wal if item.level == SEGMENTS)
    return [item for item in segments if item is newest or item.first in starts]


def _with_facts(index: Index, found: Iterable[ObjectFacts | None]) -> Index:
    """The index with the facts of some segments."""
    facts = {each.first_txid: each for each in found if each is not None}
    return index.with_objects(
        item.with_facts(facts[item.first])
        for item in index.wal
        if item.level == SEGMENTS and item.first in facts and fits(item, facts[item.first])
    )


def summarise(index: Index, *, url: str) -> History:
    """The same from values: an index with the facts of some segments."""
    snapshots = trust(index).trusted
    if not snapshots:
        raise no_backup(url)
    segments = [item for item in index.wal if item.level == SEGMENTS]
    merges = [item for item in index.wal if item.level != SEGMENTS]
    newest = index.newest_segment
    stored = [item.stored_ms for item in index.wal] + [item.stored_ms for item in snapshots]
    return History(
        url=url,
        generations=_generations(snapshots, index.head),
        snapshots=tuple(
            Snapshot(item.txid, item.generation, item.size, item.stored_ms) for item in snapshots
        ),
        first_txid=snapshots[0].txid,
        last_txid=index.head,
        last_commit_ms=newest.facts.last_commit_ms if newest and newest.facts else None,
        last_stored_ms=max(stored),
        segments=len(segments),
        segment_bytes=sum(item.size for item in segments),
        merged=len(merges),
        merged_bytes=sum(item.size for item in merges),
        snapshot_bytes=sum(item.size for item in snapshots),
        activity=_activity(index.wal, snapshots),
        restorable=tuple((first, min(last, index.head)) for first, last in restorable(index)),
    )


def _activity(log: Sequence[WalObject], snapshots: Sequence[SnapshotObject]) -> Activity:
    times = [item.stored_ms for item in log] + [item.stored_ms for item in snapshots]
    since, until = min(times), max(times)
    slices = [0] * SLICES
    for item in log:
        at = (item.stored_ms - since) * SLICES // max(1, until - since)
        slices[min(at, SLICES - 1)] += item.size
    return Activity(since, until, tuple(slices))


def _starts(index: Index) -> Iterable[SnapshotObject]:
    """The oldest snapshot of each generation."""
    found: dict[str, SnapshotObject] = {}
    for item in index.snapshots:
        found.setdefault(item.generation, item)
    return found.values()


def _generations(snapshots: Sequence[SnapshotObject], last_txid: int) -> tuple[Generation, ...]:
    groups: dict[str, list[SnapshotObject]] = {}
    for item in snapshots:
        groups.setdefault(item.generation, []).append(item)
    ordered = list(groups.items())
    ends = [items[0].txid - 1 for _, items in ordered[1:]] + [last_txid]
    return tuple(
        Generation(generation, items[0].txid, end, len(items), sum(item.size for item in items))
        for (generation, items), end in zip(ordered, ends, strict=True)
    )
