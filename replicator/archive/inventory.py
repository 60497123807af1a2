"""What a bucket holds of one database, as values that policy and merges reason about.

Owns: the items, where one ends when its name does not tell, and which generations became part
of the log. Pure; see :mod:`.listing` for how the values come out of a store.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from replicator.format.object_header import ObjectFacts
from replicator.model import Kind

SEGMENTS = 0  # the level of what lies in wal/
EVERY_TRANSACTION = 1  # the level of merges that keep every transaction
DIVISIBLE = frozenset({Kind.SEGMENT, Kind.MERGE})


@dataclass(frozen=True, slots=True)
class LogItem:
    """One object of the log. ``level`` is 0 in ``wal/``, else that of the merge.

    ``at_ms`` is when its last transaction was committed or, where nobody read that, when it was
    stored: never earlier than the commit. ``kind`` is None until the object was asked; ``last``
    of a segment is then taken from where the next one begins.
    """

    key: str
    level: int
    first: int
    last: int
    size: int
    stored_ms: int
    at_ms: int
    kind: Kind | None = None
    generation: str | None = None

    @property
    def known(self) -> bool:
        return self.kind is not None

    @property
    def divisible(self) -> bool:
        """Whether a restore can stop inside."""
        if self.kind is None:
            return self.level <= EVERY_TRANSACTION
        return self.kind in DIVISIBLE

    def told(self, facts: ObjectFacts) -> LogItem:
        """The same with what the object says of itself."""
        at_ms = facts.last_commit_ms or facts.created_ms
        return replace(
            self, last=facts.last_txid, kind=facts.kind, at_ms=at_ms, generation=facts.generation
        )


@dataclass(frozen=True, slots=True)
class SnapshotItem:
    """``at_ms`` is when it was begun, or stored as long as nobody asked it."""

    key: str
    txid: int
    generation: str
    size: int
    stored_ms: int
    at_ms: int
    known: bool = False


Object = LogItem | SnapshotItem


@dataclass(frozen=True, slots=True)
class PinnedPoint:
    """A restore point that somebody wants to keep for as long as it is pinned."""

    txid: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Inventory:
    """Everything there is. ``log`` is sorted by first txid, larger ones first.

    ``rejected`` are generations that never became part of the log: their start crashed, or
    another writer was quicker.
    """

    log: tuple[LogItem, ...] = ()
    snapshots: tuple[SnapshotItem, ...] = ()
    pins: tuple[PinnedPoint, ...] = ()
    rejected: frozenset[str] = frozenset()
    newest_ms: int = 0  # the store's clock at least showed this
    index: Mapping[str, LogItem] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ordered = sorted(self.log, key=lambda item: (item.first, -item.last, item.level))
        object.__setattr__(self, "log", tuple(ordered))
        object.__setattr__(self, "index", {item.key: item for item in ordered})

    @property
    def head(self) -> int:
        """The newest txid of the log."""
        return max((item.last for item in self.log), default=0)

    @property
    def newest_segment(self) -> LogItem | None:
        """What the log goes on from: it is never deleted."""
        return max(
            (item for item in self.log if item.level == SEGMENTS),
            key=lambda item: item.first,
            default=None,
        )

    @property
    def trusted(self) -> tuple[SnapshotItem, ...]:
        """Snapshots that a restore may begin with, oldest first."""
        head = self.head
        found = [
            item
            for item in self.snapshots
            if item.generation not in self.rejected and item.txid <= head
        ]
        return tuple(sorted(found, key=lambda item: (item.txid, item.generation)))

    def with_items(self, items: Iterable[Object]) -> Inventory:
        """The same with more items, or others under the same keys."""
        log, snapshots = dict(self.index), {item.key: item for item in self.snapshots}
        for item in items:
            if isinstance(item, LogItem):
                log[item.key] = item
            else:
                snapshots[item.key] = item
        return replace(self, log=tuple(log.values()), snapshots=tuple(snapshots.values()))

    def without(self, keys: Iterable[str]) -> Inventory:
        gone = set(keys)
        return replace(
            self,
            log=tuple(item for item in self.log if item.key not in gone),
            snapshots=tuple(item for item in self.snapshots if item.key not in gone),
        )

    def covering(self, txid: int) -> LogItem | None:
        """The smallest item that contains ``txid``; one that was read, if there is one."""
        found = [item for item in self.log if item.first <= txid <= item.last]
        return min(
            found, key=lambda item: (not item.known, item.last - item.first, item.key), default=None
        )


def with_ends(segments: Iterable[LogItem], merges: Iterable[LogItem]) -> list[LogItem]:
    """Segments whose end is not known end where the next known boundary lies; the newest one
    is taken to hold one transaction until it was asked."""
    kept = list(segments)
    starts = {item.first for item in kept}
    for item in merges:
        starts |= {item.first, item.last + 1}
    boundaries = sorted(starts)
    found = []
    for item in kept:
        at = bisect_right(boundaries, item.first)
        last = boundaries[at] - 1 if at < len(boundaries) else item.first
        found.append(item if item.known else replace(item, last=last))
    return found


def doubtful(inventory: Inventory) -> list[tuple[str, LogItem]]:
    """Generations nobody has vouched for yet, each with the object that can."""
    head = inventory.head
    newest: dict[str, SnapshotItem] = {}
    for snapshot in inventory.snapshots:
        if snapshot.txid <= head and snapshot.generation not in inventory.rejected:
            known = newest.get(snapshot.generation)
            if known is None or known.txid < snapshot.txid:
                newest[snapshot.generation] = snapshot
    covers = (
        (snapshot.generation, inventory.covering(snapshot.txid)) for snapshot in newest.values()
    )
    return [
        (generation, item)
        for generation, item in covers
        if item is not None and item.generation != generation
    ]
