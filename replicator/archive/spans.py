"""The transactions each log object covers, as far as a listing tells. Pure.

The name of a segment holds its first txid only. It ends, as far as the listing tells, right
before the next known boundary; the newest segment is open-ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from replicator.archive.keys import MergedKey, SnapshotKey, WalKey

EVERY_TRANSACTION_LEVEL = 1
OPEN_END = 1 << 64  # beyond every txid: the newest segment may go on for ever

LogKey = WalKey | MergedKey


@dataclass(frozen=True, slots=True)
class Known:
    """What was read of a log object: its generation, its txids, and whether it can be cut."""

    generation: str
    first: int
    last: int
    divisible: bool  # holds an index of its transactions, so a target may lie inside


@dataclass(frozen=True, slots=True)
class Listing:
    """The objects of one prefix, and what is known of some of them, by key."""

    wal: tuple[WalKey, ...] = ()
    snapshots: tuple[SnapshotKey, ...] = ()
    merged: tuple[MergedKey, ...] = ()
    known: Mapping[str, Known] = field(default_factory=dict)

    def without(self, key: str) -> Listing:
        """The same without one object, which turned out to be useless."""
        return replace(
            self,
            wal=tuple(item for item in self.wal if item.key != key),
            snapshots=tuple(item for item in self.snapshots if item.key != key),
            merged=tuple(item for item in self.merged if item.key != key),
        )

    @property
    def keys(self) -> set[str]:
        items: list[LogKey | SnapshotKey] = [*self.wal, *self.merged, *self.snapshots]
        return {item.key for item in items}

    @property
    def empty(self) -> bool:
        return not (self.wal or self.snapshots or self.merged)


@dataclass(frozen=True, slots=True)
class Span:
    """One log object and the transactions it covers; ``last`` is OPEN_END if unknown."""

    item: LogKey
    first: int
    last: int
    divisible: bool
    generation: str | None  # None: not known yet

    @property
    def key(self) -> str:
        return self.item.key


@dataclass(frozen=True, slots=True)
class Plan:
    """A snapshot and the log objects to apply on it, oldest first.

    ``target`` is the txid to stop after; None: the end of the last object.
    """

    snapshot: SnapshotKey
    segments: tuple[Span, ...]
    target: int | None

    @property
    def size(self) -> int:
        """Bytes to download."""
        return self.snapshot.size + sum(span.item.size for span in self.segments)

    @property
    def objects(self) -> int:
        return 1 + len(self.segments)


def log_spans(listing: Listing) -> list[Span]:
    """Every log object with the transactions it covers, by first txid, larger ones first."""
    boundaries = _boundaries(listing)
    spans = [_wal_span(item, boundaries, listing.known.get(item.key)) for item in listing.wal]
    spans += [_merged_span(item, listing.known.get(item.key)) for item in listing.merged]
    return sorted(spans, key=lambda span: (span.first, -span.last))


def covering(spans: Iterable[Span], txid: int) -> list[Span]:
    """The log objects that contain ``txid``, finest first."""
    found = [span for span in spans if span.first <= txid <= span.last]
    return sorted(found, key=lambda span: (span.last - span.first, span.key))


def _boundaries(listing: Listing) -> list[int]:
    """Txids at which some object is known to begin."""
    starts = {item.first_txid for item in listing.wal}
    for item in listing.merged:
        starts |= {item.first, item.last + 1}
    return sorted(starts)


def _wal_span(item: WalKey, boundaries: list[int], known: Known | None) -> Span:
    first = item.first_txid
    if known is not None:
        return Span(item, first, known.last, known.divisible, known.generation)
    at = _bisect(boundaries, first)
    last = boundaries[at] - 1 if at < len(boundaries) else OPEN_END
    return Span(item, first, last, divisible=True, generation=None)


def _bisect(boundaries: list[int], first: int) -> int:
    """Index of the first boundary beyond ``first``."""
    low, high = 0, len(boundaries)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if boundaries[middle] <= first else (low, middle)
    return low


def _merged_span(item: MergedKey, known: Known | None) -> Span:
    divisible = item.level <= EVERY_TRANSACTION_LEVEL if known is None else known.divisible
    generation = None if known is None else known.generation
    return Span(item, item.first, item.last, divisible, generation)
