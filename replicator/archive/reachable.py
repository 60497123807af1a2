"""Which transactions can be restored, from which snapshot, by which objects. Pure.

Owns the three rules that restore, retention, verify and the reports share:

- *trust*: a restore starts from a snapshot that the WAL objects confirm (:func:`judge`);
- *joining*: objects follow one another end to end within one generation, and only the first may
  begin before the snapshot, because a later merge can contain the snapshot's transaction;
- *stopping*: a restore stops at the end of an object, or inside one that is divisible.

An object without facts may belong to any generation: a plan that proves wrong is made again with
the facts.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from replicator.archive.index import (
    MOST_OVERLAPS,
    ArchiveObject,
    Index,
    Overlapping,
    SnapshotObject,
    WalObject,
)

Range: TypeAlias = tuple[int, int]  # txids, both inclusive
Ranges: TypeAlias = tuple[Range, ...]

# ------------------------------------------------------------------------------------- trust


@dataclass(frozen=True, slots=True)
class Judgement:
    """``by`` is the WAL object that decides about the snapshot; None if none around it is left.
    With ``by.facts`` None nothing is decided yet: the caller asks that object first."""

    trusted: bool
    by: WalObject | None

    @property
    def settled(self) -> bool:
        return self.by is None or self.by.facts is not None

    @property
    def refused(self) -> bool:
        return self.settled and not self.trusted


def judge(index: Index, snapshot: SnapshotObject, checksum: int | None) -> Judgement:
    """Checks a snapshot, whose database has that checksum (None: unknown), against the WAL
    objects.

    The object that holds its txid must be of its generation and, if it ends there, have the same
    database checksum after it. The finest of several objects decides, but one with facts before
    one without. If none is left, the object right after the txid must have that checksum before
    it, if it is of the same generation. If none is left on either side, nothing contradicts the
    snapshot, but some later object must exist: a snapshot beyond the end of the archive belongs
    to a generation that did not begin.
    """
    txid = snapshot.txid
    for item in _asked_first(index.covering(txid)):  # the first decides
        if item.facts is None:
            return Judgement(trusted=True, by=item)
        named = item.facts.checksum_after if item.last == txid else None
        same = item.generation == snapshot.generation
        return Judgement(same and _agree(checksum, named), item)
    for item in _asked_first(index.beginning(txid + 1)):
        if item.facts is None:
            return Judgement(trusted=True, by=item)
        if item.generation == snapshot.generation:
            return Judgement(_agree(checksum, item.facts.checksum_before), item)
    return Judgement(bool(index.wal) and index.wal[-1].first > txid, None)


def _asked_first(items: Iterable[WalObject]) -> list[WalObject]:
    return sorted(items, key=lambda item: item.facts is None)


def _agree(one: int | None, other: int | None) -> bool:
    return None in (one, other) or one == other


@dataclass(frozen=True, slots=True)
class Trust:
    """The verdict on each snapshot of an index. ``trusted`` is sorted by txid and generation.

    ``refused`` maps the key of each other snapshot to the WAL object that contradicts it: None
    if the archive ends before it. ``ask`` are the WAL objects whose facts are still needed, at
    most one for each generation.
    """

    trusted: tuple[SnapshotObject, ...]
    refused: dict[str, WalObject | None]
    ask: tuple[WalObject, ...]


def trust(index: Index) -> Trust:
    """Judges every snapshot with as few questions as possible.

    The newest snapshot of a generation that no object contradicts represents the generation, and
    is the one to ask about. If an object confirms it, only those of the others are refused that
    some object is known to contradict. If there is no such snapshot, all of them are refused.
    """
    found: dict[str, list[tuple[SnapshotObject, Judgement]]] = defaultdict(list)
    for snapshot in index.snapshots:
        checksum = snapshot.facts.checksum_after if snapshot.facts else None
        found[snapshot.generation].append((snapshot, judge(index, snapshot, checksum)))
    trusted: list[SnapshotObject] = []
    refused: dict[str, WalObject | None] = {}
    ask: list[WalObject] = []
    for judged in found.values():
        doubted = _doubted([judgement for _, judgement in judged])
        for snapshot, judgement in judged:
            if judgement.trusted and (judgement.settled or not doubted):
                trusted.append(snapshot)
            else:
                refused[snapshot.key] = judgement.by
        ask += _representative(judged)
    trusted.sort(key=lambda item: (item.txid, item.generation))
    return Trust(tuple(trusted), refused, tuple(ask))


def _doubted(judgements: Sequence[Judgement]) -> bool:
    """True if objects contradict some snapshot of a generation and confirm none."""
    settled = [judgement for judgement in judgements if judgement.settled]
    contradicted = any(not each.trusted and each.by is not None for each in settled)
    return contradicted and not any(each.trusted for each in settled)


def _representative(judged: Sequence[tuple[SnapshotObject, Judgement]]) -> list[WalObject]:
    """The object that holds the newest snapshot that is not refused, if it has no facts. An object
    right after a snapshot is not asked: it could add a checksum, but no generation."""
    for snapshot, judgement in reversed(judged):
        by = judgement.by
        if by is not None and not judgement.settled and by.first <= snapshot.txid:
            return [by]
        if judgement.trusted:
            break
    return []


# -------------------------------------------------------------------------------------- ways

MOST_STEPS = 16  # for each object, on average; names that are made up lead to more
Cost: TypeAlias = tuple[int, int]  # the first number counts, the second decides between equals


@dataclass(frozen=True, slots=True)
class Step:
    """The cheapest way to ``end`` within ``generation``: its newest object, and the step before
    that (None: the object is the snapshot)."""

    cost: Cost
    end: int
    generation: str
    item: ArchiveObject
    before: Step | None = None

    @property
    def way(self) -> tuple[ArchiveObject, ...]:
        """Snapshot first, then the log objects, oldest first."""
        found: list[ArchiveObject] = []
        step: Step | None = self
        while step is not None:
            found.append(step.item)
            step = step.before
        return tuple(reversed(found))


class Ways:
    """The cheapest ways from some snapshots along the WAL objects, by generation and last txid.

    ``wal`` is in the order of :attr:`Index.wal`, in which each object that ends right before
    another one precedes it.
    """

    def __init__(
        self,
        snapshots: Iterable[SnapshotObject],
        wal: Sequence[WalObject],
        cost: Callable[[ArchiveObject], Cost],
    ) -> None:
        self._cost = cost
        self._wal = wal
        self._starts = sorted(
            (Step(cost(item), item.txid, item.generation, item) for item in snapshots),
            key=lambda step: step.end,
        )
        self._txids = [step.end for step in self._starts]
        self._ends: dict[int, dict[str, Step]] = defaultdict(dict)
        for step in self._starts:
            self._offer(step)
        left = MOST_OVERLAPS + MOST_STEPS * (len(wal) + len(self._starts))
        for item in wal:
            for before in self._before(item, item.last):
                self._offer(self._step(item, item.last, before))
                left -= 1
            if left < 0:
                raise Overlapping.at(item)

    def _offer(self, step: Step) -> None:
        there = self._ends[step.end].get(step.generation)
        if there is None or step.cost < there.cost:
            self._ends[step.end][step.generation] = step

    def _step(self, item: WalObject, end: int, before: Step) -> Step:
        objects, size = self._cost(item)
        cost = before.cost[0] + objects, before.cost[1] + size
        return Step(cost, end, before.generation, item, before)

    def _before(self, item: WalObject, end: int) -> Iterator[Step]:
        """The steps that ``item`` can follow if the way stops at ``end``."""
        low = bisect_left(self._txids, item.first)
        inside = self._starts[low : bisect_left(self._txids, end)]
        for step in (*self._ends.get(item.first - 1, {}).values(), *inside):
            if item.generation in (None, step.generation):
                yield step

    def to(self, goal: int, last: Collection[str] | None = None) -> Step | None:
        """The cheapest way that stops at ``goal``; None when there is none.

        Of ways whose first cost is equal, one that stops at the end of an object wins: there the
        archive holds a checksum to compare with. ``last`` are the keys that the way may end with.
        """
        found = (
            ((step.cost[0], inside, step.cost[1]), step)
            for step, inside in self._arrivals(goal)
            if last is None or step.item.key in last
        )
        best = min(found, key=lambda pair: pair[0], default=None)
        return None if best is None else best[1]

    def _arrivals(self, goal: int) -> Iterator[tuple[Step, bool]]:
        """Each step that stops at ``goal``, and whether that is inside its object."""
        low, high = bisect_left(self._txids, goal), bisect_right(self._txids, goal)
        for step in self._starts[low:high]:
            yield step, False
        for item in self._wal:
            if item.first <= goal <= item.last and (item.last == goal or item.divisible):
                for before in self._before(item, goal):
                    yield self._step(item, goal, before), item.last != goal

    def furthest(self, limit: int) -> int:
        """The newest txid up to ``limit`` at which a way stops; 0 when there is none."""
        if self.to(limit) is not None:
            return limit
        return max((end for end in self._ends if end <= limit), default=0)

    def ranges(self) -> Ranges:
        """Every txid at which a way stops."""
        starts = ((txid, txid) for txid in self._txids)
        return normalised([*starts, *self._joined()])

    def _joined(self) -> Iterator[Range]:
        for item in self._wal:
            before = min((step.end for step in self._before(item, item.last)), default=None)
            if before is not None:
                yield (before + 1 if item.divisible else item.last), item.last


def fewest_objects(item: ArchiveObject) -> Cost:
    """The cost of a restore: requests first, then bytes."""
    return 1, item.size


def restorable(index: Index) -> Ranges:
    """The txids that can be restored exactly."""
    return Ways(trust(index).trusted, index.wal, fewest_objects).ranges()


# ------------------------------------------------------------------------------------ ranges


def normalised(ranges: Iterable[Range]) -> Ranges:
    """Sorted, with touching and overlapping ranges joined."""
    joined: list[Range] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(joined[-1][1], last)
        else:
            joined.append((first, last))
    return tuple(joined)


def without(ranges: Ranges, taken: Ranges) -> Ranges:
    """The txids of ``ranges`` that are not in ``taken``; both normalised."""
    left: list[Range] = []
    for first, last in ranges:
        here = first
        for start, end in taken:
            if end < here or start > last:
                continue
            if start > here:
                left.append((here, start - 1))
            here = end + 1
        if here <= last:
            left.append((here, last))
    return tuple(left)
