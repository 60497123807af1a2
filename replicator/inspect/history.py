"""What the bucket holds of one database: generations, snapshots, the window, the sizes.

Owns the summary, a pure function of one listing and the facts of the newest segment. It reads
no object, so it proves nothing about their bytes, nor that none is missing.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace

from replicator.archive.catalog import find_databases, known_from
from replicator.archive.events import STEP, Event, events
from replicator.archive.inventory import PinnedPoint
from replicator.archive.keys import (
    Keys,
    MergedKey,
    ParsedKey,
    ProofKey,
    SnapshotKey,
    WalKey,
    parse_key,
    parse_proof_key,
)
from replicator.archive.listing import list_pins
from replicator.archive.reachable import Ranges, reached
from replicator.archive.records import PROVEN, newest
from replicator.archive.spans import Listing, log_spans
from replicator.errors import NoBackup
from replicator.format.object_header import ObjectFacts, parse_metadata
from replicator.store.address import StoreAddress
from replicator.store.base import ObjectInfo, Store
from replicator.store.registry import open_store
from replicator.store.retry import HISTORY_RETRIES, RetryingStore

SLICES = 60  # of the time that an activity covers
_NOWHERE = "check the bucket and the prefix"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot object. ``stored_ms`` is when the store took it."""

    txid: int
    generation: str
    size: int
    stored_ms: int


@dataclass(frozen=True, slots=True)
class Generation:
    """A run of the log in which each segment applies on top of the one before."""

    id: str
    first_txid: int
    last_txid: int
    snapshots: int
    size: int  # of its snapshots, bytes


@dataclass(frozen=True, slots=True)
class Activity:
    """Bytes that were stored of the log in equal slices of the time from ``since_ms`` to
    ``until_ms``."""

    since_ms: int
    until_ms: int
    bytes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class History:
    """The restorable past of one database, oldest first."""

    url: str
    generations: tuple[Generation, ...]
    snapshots: tuple[Snapshot, ...]
    first_txid: int  # oldest restorable
    last_txid: int  # newest restorable
    last_commit_ms: int | None  # commit time of ``last_txid``, where the store tells
    last_stored_ms: int  # when the newest object of the log was stored
    segments: int
    segment_bytes: int
    merged: int
    merged_bytes: int
    snapshot_bytes: int
    activity: Activity = field(default=Activity(0, 0, ()))
    events: tuple[Event, ...] = ()  # where the log did not simply go on, oldest first
    proofs: tuple[ProofKey, ...] = ()  # what was proved and found, oldest first
    restorable: Ranges = ()  # (first, last) txids, as far as names tell; a step is its end alone
    pins: tuple[PinnedPoint, ...] = ()

    @property
    def proven(self) -> ProofKey | None:
        """The newest drill that worked."""
        return newest(self.proofs, PROVEN)

    @property
    def total_bytes(self) -> int:
        return self.segment_bytes + self.merged_bytes + self.snapshot_bytes


Entry = tuple[ParsedKey, ObjectInfo]
Facts = Mapping[int, ObjectFacts]  # of segments whose HEAD was asked for, by first txid


def histories(address: StoreAddress) -> list[History]:
    """The history of the database an address names, or of every database in the bucket when it
    names none. ``NoBackup`` if there is none."""
    with contextlib.closing(open_store(address)) as opened:
        store = RetryingStore(opened, HISTORY_RETRIES)
        prefixes = [address.prefix] if address.prefix else find_databases(store)
        if not prefixes:
            raise NoBackup(f"no backup at {address.url}", hint=_NOWHERE)
        return [
            history(store, prefix, url=f"{store.url.rstrip('/')}/{prefix}".rstrip("/"))
            for prefix in prefixes
        ]


def history(store: Store, prefix: str, *, url: str) -> History:
    """The history below a prefix: two listings, one HEAD for the newest segment, for each
    generation and for each event, one GET for each pin. ``NoBackup`` if there is none."""
    keys = Keys(prefix)
    entries: list[Entry] = []
    proofs: list[ProofKey] = []
    for info in store.list(keys.root):
        if (parsed := parse_key(prefix, info.key, info.size)) is not None:
            entries.append((parsed, info))
        elif (proof := parse_proof_key(prefix, info.key)) is not None:
            proofs.append(proof)
    heads = {
        txid: parse_metadata(store.head(keys.wal(txid)).metadata)
        for txid in telling(key for key, _ in entries)
    }
    first_txids = sorted(key.first_txid for key, _ in entries if isinstance(key, WalKey))
    happened = events(store, keys, first_txids)
    found = summarise(
        entries,
        {txid: facts for txid, facts in heads.items() if facts},
        url=url,
        steps={event.txid for event in happened if event.kind == STEP},
    )
    return replace(
        found,
        proofs=tuple(sorted(proofs, key=lambda proof: proof.at_ms)),
        events=happened,
        pins=list_pins(store, keys),
    )


def telling(keys: Iterable[ParsedKey]) -> set[int]:
    """First txids of the segments worth a HEAD: the newest, and where a snapshot may begin a
    generation."""
    kept = list(keys)
    wal = {key.first_txid for key in kept if isinstance(key, WalKey)}
    return {max(wal), *(wal & set(_starts(kept).values()))} if wal else set()


def summarise(
    entries: Iterable[Entry], facts: Facts, *, url: str, steps: Container[int] = ()
) -> History:
    """The same from values: parsed keys with their objects, what the HEADs said, and the first
    txids of the segments that are one step."""
    kept = list(entries)
    wal = [(key, info) for key, info in kept if isinstance(key, WalKey)]
    merged = [(key, info) for key, info in kept if isinstance(key, MergedKey)]
    last = _last(wal, merged, facts)
    orphans = _orphans(_starts(key for key, _ in kept), facts, last)
    snapshots = sorted(
        (
            (key, info)
            for key, info in kept
            if isinstance(key, SnapshotKey) and key.generation not in orphans
        ),
        key=lambda pair: (pair[0].txid, pair[0].generation),
    )
    if not snapshots:
        raise NoBackup(f"no backup at {url}", hint=_NOWHERE)
    head = max((key.first_txid for key, _ in wal), default=0)
    return History(
        url=url,
        generations=_generations([key for key, _ in snapshots], last),
        snapshots=tuple(
            Snapshot(key.txid, key.generation, info.size, info.modified_ms)
            for key, info in snapshots
        ),
        first_txid=snapshots[0][0].txid,
        last_txid=last,
        last_commit_ms=facts[head].last_commit_ms if head in facts else None,
        last_stored_ms=max(info.modified_ms for _, info in (*wal, *merged, *snapshots)),
        segments=len(wal),
        segment_bytes=sum(info.size for _, info in wal),
        merged=len(merged),
        merged_bytes=sum(info.size for _, info in merged),
        snapshot_bytes=sum(info.size for _, info in snapshots),
        activity=_activity(
            [info for _, info in wal] + [info for _, info in merged],
            [info for _, info in snapshots],
        ),
        restorable=_restorable(
            Listing(
                wal=tuple(key for key, _ in wal),
                merged=tuple(key for key, _ in merged),
                known={
                    key.key: known_from(facts[key.first_txid])
                    for key, _ in wal
                    if key.first_txid in facts
                },
            ),
            [key for key, _ in snapshots],
            last,
            steps,
        ),
    )


@dataclass(frozen=True, slots=True)
class _Piece:
    """An object as its name tells it."""

    generation: str
    first: int
    last: int
    divisible: bool = True


def _restorable(
    log: Listing, snapshots: list[SnapshotKey], last: int, steps: Container[int]
) -> Ranges:
    """By names alone: an object is of the generation that began last, and a segment ends where
    the next object begins."""
    begun = sorted((txid, generation) for generation, txid in _starts(snapshots).items())
    pieces = []
    for span in log_spans(log):
        end = min(span.last, last)
        at = bisect_right(begun, end, key=lambda start: start[0]) - 1
        if at >= 0:
            pieces.append(
                _Piece(begun[at][1], span.first, end, span.divisible and span.first not in steps)
            )
    return reached([_Piece(key.generation, key.txid, key.txid) for key in snapshots], pieces)


def _activity(log: list[ObjectInfo], snapshots: list[ObjectInfo]) -> Activity:
    times = [info.modified_ms for info in (*log, *snapshots)]
    since, until = min(times), max(times)
    slices = [0] * SLICES
    for info in log:
        at = (info.modified_ms - since) * SLICES // max(1, until - since)
        slices[min(at, SLICES - 1)] += info.size
    return Activity(since, until, tuple(slices))


def _starts(keys: Iterable[ParsedKey]) -> dict[str, int]:
    """The oldest snapshot of each generation."""
    found: dict[str, int] = {}
    for key in keys:
        if isinstance(key, SnapshotKey):
            found[key.generation] = min(key.txid, found.get(key.generation, key.txid))
    return found


def _last(
    wal: list[tuple[WalKey, ObjectInfo]], merged: list[tuple[MergedKey, ObjectInfo]], facts: Facts
) -> int:
    """The newest txid of the log, a lower bound where the store keeps no metadata."""
    ends = [
        facts[key.first_txid].last_txid if key.first_txid in facts else key.first_txid
        for key, _ in wal
    ]
    return max([*ends, *(key.last for key, _ in merged)], default=0)


def _orphans(starts: Mapping[str, int], facts: Facts, last: int) -> set[str]:
    """Generations whose start never became part of the log: it crashed, or lost a race."""
    return {
        generation
        for generation, txid in starts.items()
        if txid > last or (txid in facts and facts[txid].generation != generation)
    }


def _generations(snapshots: list[SnapshotKey], last_txid: int) -> tuple[Generation, ...]:
    groups: dict[str, list[SnapshotKey]] = {}
    for key in snapshots:
        groups.setdefault(key.generation, []).append(key)
    ordered = list(groups.items())
    ends = [keys[0].txid - 1 for _, keys in ordered[1:]] + [last_txid]
    return tuple(
        Generation(generation, keys[0].txid, end, len(keys), sum(key.size for key in keys))
        for (generation, keys), end in zip(ordered, ends, strict=True)
    )
