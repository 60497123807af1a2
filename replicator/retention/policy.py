"""Decides which objects stay: a pure function of the index, the rules and the time.

It guarantees, for all rules:

- the newest WAL object stays, and every object on the way from the newest snapshot to it;
- every transaction committed within ``every_transaction``, and the state at its old edge, can be
  restored exactly;
- a restore point that a rule or a pin keeps can be restored exactly from the objects that stay;
- an object whose generation is about to begin stays; one that no restore would trust goes first,
  while other objects still prove that.

Trust and ways are those of a restore (:mod:`replicator.archive.reachable`). Retention asks fewer
objects: one for each generation. A snapshot with a wrong checksum is therefore refused only if
both checksums are known. The store's clock counts: no object is ever treated as older than it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from replicator.archive.index import (
    EVERY_TRANSACTION,
    ArchiveObject,
    Index,
    PinnedPoint,
    SnapshotObject,
    WalObject,
)
from replicator.archive.reachable import (
    Cost,
    Step,
    Trust,
    Ways,
    fewest_objects,
    trust,
    without,
)
from replicator.archive.timespec import to_text
from replicator.errors import DamageError
from replicator.model import Retention

DAY_MS = 86_400_000
WORK = 10_000_000  # objects that searches pass in vain for one decision
Tier = Literal["hourly", "daily", "weekly", "monthly"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision on one object, and its reason. ``covered_by`` is the key of the merge that must
    be proved to be in the store first."""

    key: str
    size: int
    keep: bool
    reason: str
    covered_by: str | None = None


@dataclass(frozen=True, slots=True)
class KeptPoint:
    """A transaction older than the window that stays restorable, and the rule that keeps it."""

    txid: int
    at_ms: int | None
    rule: str


@dataclass(frozen=True, slots=True)
class PruneDecision:
    """``verdicts`` of every object; the deletions among them in the order they must happen.

    From ``window_from`` on every transaction can be restored. ``unsure`` are objects that must
    be asked for what they hold before anything is deleted: the caller learns and decides again.
    """

    verdicts: tuple[Verdict, ...]
    window_from: int
    points: tuple[KeptPoint, ...]
    lost_pins: tuple[int, ...] = ()
    unsure: tuple[ArchiveObject, ...] = ()

    @property
    def deletions(self) -> tuple[Verdict, ...]:
        return tuple(verdict for verdict in self.verdicts if not verdict.keep)


def decide(
    index: Index,
    pins: Iterable[PinnedPoint],
    rules: Retention,
    now_ms: int,
    *,
    grace_ms: int,
    work: int = WORK,
) -> PruneDecision:
    """``grace_ms`` is how long a merge must be there before the objects it replaces go. ``work``
    limits the objects that all searches pass: ``DamageError`` beyond it, and nothing is decided.
    """
    return _Deciding(index, tuple(pins), rules, now_ms, grace_ms, trust(index), work).decide()


@dataclass(frozen=True, slots=True)
class _Stop:
    """An object that shows the state after ``txid``, and when that was."""

    txid: int
    at_ms: int
    item: ArchiveObject


@dataclass(slots=True)
class _Deciding:
    index: Index
    pins: tuple[PinnedPoint, ...]
    rules: Retention
    now_ms: int
    grace_ms: int
    trust: Trust
    work: int  # objects that the searches may still pass
    kept: dict[str, str] = field(default_factory=dict)  # key → reason
    unsure: dict[str, ArchiveObject] = field(default_factory=dict)
    points: list[KeptPoint] = field(default_factory=list)
    lost_pins: list[int] = field(default_factory=list)

    def decide(self) -> PruneDecision:
        trusted = self.trust.trusted
        self._ask(self.trust.ask)
        if not trusted:
            for item in self._objects():
                self._keep(item, "no snapshot leads anywhere yet")
            return self._result(0)
        base = self._base(trusted)
        self._ask(i for i in self.index.wal if i.first <= base.txid < i.last and i.guessed)
        self._keep_window(base, trusted)
        covered = self._covered()
        self._keep_head()
        self._keep_count(trusted)
        log = self.index.without(covered)
        for txid, rule in self._pinned():
            if not self._keep_point(log, base.txid, KeptPoint(txid, None, rule)):
                self.lost_pins.append(txid)
        stops = self._stops(covered)
        for tier, seconds in self._tiers():
            self._keep_tier(log, base.txid, tier, seconds, stops)
        return self._result(base.txid, covered)

    def _ask(self, items: Iterable[ArchiveObject]) -> None:
        self.unsure |= {item.key: item for item in items}

    def _objects(self) -> Iterator[ArchiveObject]:
        yield from self.index.snapshots
        yield from self.index.wal

    def _keep(self, item: ArchiveObject, reason: str) -> None:
        self.kept.setdefault(item.key, reason)

    # ---------------------------------------------------------------- every transaction

    @property
    def _edge_ms(self) -> float:
        return self.now_ms - 1000 * self.rules.every_transaction

    def _old(self, item: WalObject) -> bool:
        """By both clocks: the one that commits were timed with, and the store's."""
        return max(item.at_ms, item.stored_ms) < self._edge_ms

    def _base(self, trusted: tuple[SnapshotObject, ...]) -> SnapshotObject:
        """The snapshot that the window begins with: it shows the state at the old edge or an
        older one, and of those it is the newest."""
        newest = max(
            (item for item in self.index.wal if self._old(item)),
            key=lambda item: item.last,
            default=None,
        )
        if newest is not None and newest.guessed:
            self._ask([newest])
        edge = max(
            [item.txid for item in trusted if item.stored_ms < self._edge_ms]
            + ([newest.last] if newest is not None else []),
            default=0,
        )
        return max(
            (item for item in trusted if item.txid <= edge),
            key=lambda item: (item.txid, item.generation),
            default=trusted[0],
        )

    def _keep_window(self, base: SnapshotObject, trusted: tuple[SnapshotObject, ...]) -> None:
        reason = "every transaction since then is kept"
        for snapshot in trusted:
            if snapshot.txid >= base.txid:
                self._keep(snapshot, reason)
        for item in self.index.wal:
            if item.last > base.txid:
                self._keep(item, f"it leads on from the snapshot of transaction {base.txid}")
            elif not self._old(item) or item.stored_ms + self.grace_ms > self.now_ms:
                self._keep(item, "it is younger than what is kept of every transaction")
        for snapshot in self.index.snapshots:
            if snapshot.txid > self.index.head:
                self._keep(snapshot, "a generation is about to begin with it")
            elif snapshot.txid >= base.txid and self._contradicted(snapshot):
                self._keep(snapshot, "it contradicts the archive; see replicator verify")

    def _contradicted(self, snapshot: SnapshotObject) -> bool:
        """True if the archive names another checksum for its state. One of the two is damaged,
        perhaps not the snapshot."""
        by = self.trust.refused.get(snapshot.key)
        return by is not None and by.generation == snapshot.generation

    def _covered(self) -> dict[str, str]:
        """Objects whose transactions a merge holds, with its key; they are no longer kept. Next to
        a hole those stay without which some transaction could not be restored.
        """
        found = self._within_merges()
        ways = self._ways(self.index)
        whole = ways.ranges() if found else ()
        while lost := without(whole, self._ways(self.index.without(found)).ranges()):
            needed = {
                item.key
                for txid in {txid for ends in lost for txid in ends}
                if (step := ways.to(txid)) is not None
                for item in step.way
            }
            if needed.isdisjoint(found):
                break
            found = {key: merge for key, merge in found.items() if key not in needed}
        for key in found:
            self.kept.pop(key, None)
        return found

    def _ways(self, index: Index) -> Ways:
        return Ways(self.trust.trusted, index.wal, fewest_objects)

    def _within_merges(self) -> dict[str, str]:
        """Each object whose transactions are in a merge of level 1 that is old enough, with the key
        of the merge."""
        merges = [
            item
            for item in self.index.wal
            if item.level == EVERY_TRANSACTION
            and item.divisible
            and item.stored_ms + self.grace_ms <= self.now_ms
        ]
        newest = self.index.newest_segment
        found: dict[str, str] = {}
        widest: WalObject | None = None  # of the merges up to here, the one that reaches furthest
        at = 0
        for item in self.index.wal:
            while at < len(merges) and merges[at].first <= item.first:
                widest = merges[at] if widest is None or merges[at].last > widest.last else widest
                at += 1
            if (
                widest is not None
                and item.last <= widest.last
                and item is not newest
                and item.key != widest.key
                and item.divisible
                and item.level <= EVERY_TRANSACTION
            ):
                found[item.key] = widest.key
        return found

    def _keep_head(self) -> None:
        """Keep the object that the next append follows; and the one that the log ends with, if
        that is a merge: without it a snapshot of the same txid would seem to be beyond the end.
        """
        newest, head = self.index.newest_segment, self.index.head
        if newest is not None:
            self.kept[newest.key] = "the next append follows it"
        if newest is None or newest.last < head:
            for item in self.index.covering(head)[:1]:
                self._keep(item, "the archive ends with it")

    def _keep_count(self, trusted: tuple[SnapshotObject, ...]) -> None:
        count = self.rules.snapshots
        for snapshot in trusted[-count:]:
            self._keep(snapshot, f"it is one of the newest {count} snapshots")

    # ---------------------------------------------------------------- points

    def _pinned(self) -> list[tuple[int, str]]:
        """Each pinned transaction once, oldest first, with the names and notes of its pins."""
        found: dict[int, list[str]] = {}
        for pin in sorted(self.pins, key=lambda pin: (pin.txid, pin.name)):
            words = ": ".join(filter(None, (pin.name, pin.note)))
            found.setdefault(pin.txid, []).extend([words] if words else [])
        return [
            (txid, ": ".join(filter(None, ("pinned", ", ".join(words)))))
            for txid, words in found.items()
        ]

    def _tiers(self) -> list[tuple[Tier, float]]:
        """The coarsest first, so that finer points find its snapshots to build on."""
        rules = self.rules
        every: list[tuple[Tier, float]] = [
            ("monthly", rules.monthly),
            ("weekly", rules.weekly),
            ("daily", rules.daily),
            ("hourly", rules.hourly),
        ]
        return [(tier, seconds) for tier, seconds in every if seconds > 0]

    def _keep_tier(
        self,
        log: Index,
        window: int,
        tier: Tier,
        seconds: float,
        stops: list[_Stop],
    ) -> None:
        """The last restorable state of each period, oldest first. A snapshot goes first except
        for hours: it needs nothing else."""
        since = self.now_ms - 1000 * seconds
        periods: dict[object, dict[tuple[bool, int], list[_Stop]]] = {}
        for stop in stops:
            if stop.at_ms >= since:
                first = tier != "hourly" and isinstance(stop.item, SnapshotObject)
                period = periods.setdefault(PERIODS[tier](stop.at_ms), {})
                period.setdefault((first, stop.txid), []).append(stop)
        for period in sorted(periods.values(), key=lambda period: min(txid for _, txid in period)):
            for _, same in sorted(period.items(), reverse=True):
                at_ms = max(stop.at_ms for stop in same)
                point = KeptPoint(same[0].txid, at_ms, f"the {tier} point {to_text(at_ms)}")
                if self._keep_point(log, window, point, {stop.item.key for stop in same}):
                    break

    def _stops(self, covered: Collection[str]) -> list[_Stop]:
        """Objects at whose end a restore can stop, by the names alone. Those inside an hourly merge
        are left out."""
        found = [_Stop(item.txid, item.at_ms, item) for item in self.trust.trusted]
        reach = 0
        for item in self.index.wal:
            if item.level > EVERY_TRANSACTION:
                reach = max(reach, item.last)
            elif item.last <= reach or item.key in covered:
                continue
            found.append(_Stop(item.last, item.at_ms, item))
        return found

    def _keep_point(
        self, log: Index, window: int, point: KeptPoint, ends: Collection[str] | None = None
    ) -> bool:
        """Keep a way to a point, if there is one; of a period, one that ends with an object which
        shows that the point belongs to it, so that it will still be seen to belong there."""
        if point.txid > self.index.head:
            return False
        if point.txid > window:
            return self._cheapest(log, point.txid, None) is not None
        step = self._cheapest(log, point.txid, ends)
        if step is None:
            return False
        self.points.append(point)
        for item in step.way:
            self._keep(item, f"{point.rule} needs it" if item is not step.item else point.rule)
        self._ask(i for i in step.way if isinstance(i, WalObject) and i.guessed)
        if ends is not None and step.item.facts is None:
            self._ask([step.item])
        return True

    def _cheapest(self, log: Index, goal: int, ends: Collection[str] | None) -> Step | None:
        """The way to ``goal`` that adds the fewest bytes to the objects kept so far. It begins at
        the newest snapshot that is kept, or later: if an older one leads there, so does that one,
        unless it belongs to a generation that never began; then any snapshot may begin the way.
        """

        def cost(item: ArchiveObject) -> Cost:
            return 0 if item.key in self.kept else max(1, item.size), 1

        usable = [
            item
            for item in self.trust.trusted
            if item.txid < goal or (item.txid == goal and (ends is None or item.key in ends))
        ]
        kept = (at for at in reversed(range(len(usable))) if usable[at].key in self.kept)
        for start in sorted({next(kept, 0), 0}, reverse=True):
            begins = usable[start:]
            if begins:
                between = log.between(begins[0].txid + 1, goal)
                ways = Ways(begins, between, cost)
                if (step := ways.to(goal, ends)) is not None:
                    return step
                self._spend(len(between), begins[0])
        return None

    def _spend(self, objects: int, snapshot: SnapshotObject) -> None:
        self.work -= objects
        if self.work < 0:
            raise DamageError(
                f"{snapshot.key}: too many objects after it lead nowhere; nothing is deleted",
                key=snapshot.key,
                code="beyond_limits",
                hint="replicator verify lists the objects that are damaged or missing",
            )

    # ---------------------------------------------------------------- the result

    def _result(self, window: int, covered: dict[str, str] | None = None) -> PruneDecision:
        keep = [
            Verdict(item.key, item.size, True, self.kept[item.key])
            for item in self._objects()
            if item.key in self.kept
        ]
        covered = {key: merge for key, merge in (covered or {}).items() if merge in self.kept}
        gone = [
            Verdict(item.key, item.size, False, self._why(item, covered), covered.get(item.key))
            for item in self._in_order(i for i in self._objects() if i.key not in self.kept)
        ]
        return PruneDecision(
            (*keep, *gone),
            window,
            tuple(sorted(self.points, key=lambda p: p.txid)),
            tuple(self.lost_pins),
            tuple(self.unsure.values()),
        )

    def _in_order(self, items: Iterable[ArchiveObject]) -> list[ArchiveObject]:
        """Refused snapshots while the log still disproves them; then the log; then the other
        snapshots, so that none is missing below a log that would seem to continue an older one.
        Each oldest first, so that no end of a segment is mistaken until all are gone."""

        def rank(item: ArchiveObject) -> tuple[int, int, str]:
            if isinstance(item, WalObject):
                return 1, item.first, item.key
            return (0 if item.key in self.trust.refused else 2), item.txid, item.key

        return sorted(items, key=rank)

    def _why(self, item: ArchiveObject, covered: dict[str, str]) -> str:
        if item.key in covered:
            return f"{covered[item.key]} holds all of its transactions"
        if not isinstance(item, SnapshotObject) or self._contradicted(item):
            return "it is older than every rule, and nothing that is kept needs it"
        if item.key in self.trust.refused:
            return "its generation never became part of the archive"
        return "it is older than every rule, and nothing that is kept needs it"


def _week(at_ms: int) -> object:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isocalendar()[:2]


def _month(at_ms: int) -> object:
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    return moment.year, moment.month


def _hour(at_ms: int) -> object:
    return at_ms // 3_600_000


def _day(at_ms: int) -> object:
    return at_ms // DAY_MS


# Periods are those of UTC.
PERIODS: dict[Tier, Callable[[int], object]] = {
    "hourly": _hour,
    "daily": _day,
    "weekly": _week,
    "monthly": _month,
}
