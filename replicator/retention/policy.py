"""Which objects stay: a pure function of what there is, the rules and the time.

What it promises, whatever the rules say:

- the newest object of the log stays, and everything that leads from the newest snapshot to it;
- every transaction committed within ``every_transaction``, and the state at its old edge, can be
  restored exactly;
- a restore point that a rule or a pin keeps can be restored exactly from what stays;
- an object whose generation is about to begin stays; one that no restore would trust goes first,
  while the log still proves that.

Times count as the store tells them: an object is never taken for older than it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from replicator.archive.inventory import (
    EVERY_TRANSACTION,
    SEGMENTS,
    Inventory,
    LogItem,
    Object,
    SnapshotItem,
    doubtful,
)
from replicator.archive.paths import Paths
from replicator.model import Retention

DAY_MS = 86_400_000
Tier = Literal["hourly", "daily", "weekly", "monthly"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happens to one object, and why. ``stands_in`` is the key of the merge that must be
    proved to be in the store first."""

    key: str
    size: int
    keep: bool
    reason: str
    stands_in: str | None = None


@dataclass(frozen=True, slots=True)
class KeptPoint:
    """A transaction older than the window that can still be restored, and for whom."""

    txid: int
    at_ms: int | None
    rule: str


@dataclass(frozen=True, slots=True)
class Decision:
    """``verdicts`` of every object; the deletions among them in the order they must happen.

    From ``window_from`` on every transaction can be restored. ``unsure`` are objects that must
    be asked for what they hold before anything is deleted: the caller learns and decides again.
    """

    verdicts: tuple[Verdict, ...]
    window_from: int
    points: tuple[KeptPoint, ...]
    lost_pins: tuple[int, ...] = ()
    unsure: tuple[Object, ...] = ()

    @property
    def deletions(self) -> tuple[Verdict, ...]:
        return tuple(verdict for verdict in self.verdicts if not verdict.keep)


def decide(inventory: Inventory, rules: Retention, now_ms: int, *, grace_ms: int) -> Decision:
    """``grace_ms`` is how long a merge must be there before what it stands for goes."""
    return _Deciding(inventory, rules, now_ms, grace_ms).decide()


@dataclass(frozen=True, slots=True)
class _Place:
    """An object that shows the state after ``txid``, and when that was."""

    txid: int
    at_ms: int
    item: Object


@dataclass(slots=True)
class _Deciding:
    inventory: Inventory
    rules: Retention
    now_ms: int
    grace_ms: int
    kept: dict[str, str] = field(default_factory=dict)  # key → reason
    unsure: dict[str, Object] = field(default_factory=dict)
    points: list[KeptPoint] = field(default_factory=list)
    lost_pins: list[int] = field(default_factory=list)

    def decide(self) -> Decision:
        trusted = self.inventory.trusted
        self.unsure |= {item.key: item for _, item in doubtful(self.inventory)}
        if not trusted:
            for item in self._objects():
                self._keep(item, "no snapshot leads anywhere yet")
            return self._result(0)
        base = self._base(trusted)
        self.unsure |= {
            item.key: item
            for item in self.inventory.log
            if item.first <= base.txid < item.last and _guessed(item)
        }
        self._keep_window(base, trusted)
        covered = self._covered()
        self._keep_head()
        self._keep_count(trusted)
        paths = Paths(self.inventory.without(covered))
        for pin in sorted(self.inventory.pins, key=lambda pin: pin.txid):
            said = f"pinned{': ' if pin.note else ''}{pin.note}"
            if not self._keep_point(paths, base.txid, KeptPoint(pin.txid, None, said)):
                self.lost_pins.append(pin.txid)
        places = self._places(covered)
        for tier, seconds in self._tiers():
            self._keep_tier(paths, base.txid, tier, seconds, places)
        return self._result(base.txid, covered)

    def _objects(self) -> Iterator[Object]:
        yield from self.inventory.snapshots
        yield from self.inventory.log

    def _keep(self, item: Object, reason: str) -> None:
        self.kept.setdefault(item.key, reason)

    # ---------------------------------------------------------------- every transaction

    @property
    def _edge_ms(self) -> float:
        return self.now_ms - 1000 * self.rules.every_transaction

    def _old(self, item: LogItem) -> bool:
        """By both clocks: the one that commits were timed with, and the store's."""
        return max(item.at_ms, item.stored_ms) < self._edge_ms

    def _base(self, trusted: tuple[SnapshotItem, ...]) -> SnapshotItem:
        """The snapshot that the window begins with: it shows the state at the old edge or an
        older one, and of those it is the newest."""
        newest = max(
            (item for item in self.inventory.log if self._old(item)),
            key=lambda item: item.last,
            default=None,
        )
        if newest is not None and _guessed(newest):
            self.unsure[newest.key] = newest
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

    def _keep_window(self, base: SnapshotItem, trusted: tuple[SnapshotItem, ...]) -> None:
        reason = "every transaction since then is kept"
        for snapshot in trusted:
            if snapshot.txid >= base.txid:
                self._keep(snapshot, reason)
        for item in self.inventory.log:
            if item.last > base.txid:
                self._keep(item, f"it leads on from the snapshot of transaction {base.txid}")
            elif not self._old(item) or item.stored_ms + self.grace_ms > self.now_ms:
                self._keep(item, "it is younger than what is kept of every transaction")
        for snapshot in self.inventory.snapshots:
            if snapshot.txid > self.inventory.head:
                self._keep(snapshot, "a generation is about to begin with it")

    def _covered(self) -> dict[str, str]:
        """Objects that a merge stands for, with its key; they are no longer kept."""
        merges = [
            item
            for item in self.inventory.log
            if item.level == EVERY_TRANSACTION
            and item.divisible
            and item.stored_ms + self.grace_ms <= self.now_ms
        ]
        newest = self.inventory.newest_segment
        found: dict[str, str] = {}
        widest: LogItem | None = None  # of the merges up to here, the one that reaches furthest
        at = 0
        for item in self.inventory.log:
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
                self.kept.pop(item.key, None)
        return found

    def _keep_head(self) -> None:
        newest = self.inventory.newest_segment
        if newest is not None:
            self.kept[newest.key] = "the log goes on from it"

    def _keep_count(self, trusted: tuple[SnapshotItem, ...]) -> None:
        count = self.rules.snapshots
        for snapshot in trusted[-count:]:
            self._keep(snapshot, f"it is one of the newest {count} snapshots")

    # ---------------------------------------------------------------- points

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
        self, paths: Paths, window: int, tier: Tier, seconds: float, places: list[_Place]
    ) -> None:
        """The last restorable state of each period, oldest first. A snapshot goes first but
        for hours: it stands by itself."""
        since = self.now_ms - 1000 * seconds
        periods: dict[object, dict[tuple[bool, int], list[_Place]]] = {}
        for place in places:
            if place.at_ms >= since:
                first = tier != "hourly" and isinstance(place.item, SnapshotItem)
                period = periods.setdefault(PERIODS[tier](place.at_ms), {})
                period.setdefault((first, place.txid), []).append(place)
        for period in sorted(periods.values(), key=lambda period: min(txid for _, txid in period)):
            for _, same in sorted(period.items(), reverse=True):
                at_ms = max(place.at_ms for place in same)
                point = KeptPoint(same[0].txid, at_ms, f"the {tier} point {_moment(at_ms)}")
                if self._keep_point(paths, window, point, {place.item.key for place in same}):
                    break

    def _places(self, covered: Collection[str]) -> list[_Place]:
        """Where a restore can stop by the names alone. What a merge of hours contains is left
        out, but for its end."""
        found = [_Place(item.txid, item.at_ms, item) for item in self.inventory.trusted]
        reach = 0
        for item in self.inventory.log:
            if item.level > EVERY_TRANSACTION:
                reach = max(reach, item.last)
            elif item.last <= reach or item.key in covered:
                continue
            found.append(_Place(item.last, item.at_ms, item))
        return found

    def _keep_point(
        self, paths: Paths, window: int, point: KeptPoint, ends: Collection[str] | None = None
    ) -> bool:
        """Keep a way to a point, if there is one; of a period, one that ends with what shows
        that the point belongs to it, so that it will still be seen to belong there."""
        if point.txid > self.inventory.head:
            return False
        if point.txid > window:
            return paths.cheapest(point.txid, self.kept.keys()) is not None
        way = paths.cheapest(point.txid, self.kept.keys(), ends)
        if way is None:
            return False
        self.points.append(point)
        for item in way:
            self._keep(item, f"{point.rule} needs it" if item is not way[-1] else point.rule)
            if _guessed(item):
                self.unsure[item.key] = item
        if ends is not None and not way[-1].known:
            self.unsure[way[-1].key] = way[-1]
        return True

    # ---------------------------------------------------------------- the result

    def _result(self, window: int, covered: dict[str, str] | None = None) -> Decision:
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
        return Decision(
            (*keep, *gone),
            window,
            tuple(sorted(self.points, key=lambda p: p.txid)),
            tuple(self.lost_pins),
            tuple(self.unsure.values()),
        )

    def _in_order(self, items: Iterable[Object]) -> list[Object]:
        """Snapshots that nobody trusts while the log still disproves them; then the log; then
        snapshots, so that none is missing below a log that would seem to lead on from an older
        one. Each oldest first, so that no end of a segment is mistaken meanwhile."""

        def rank(item: Object) -> tuple[int, int, str]:
            if isinstance(item, LogItem):
                return 1, item.first, item.key
            rejected = item.generation in self.inventory.rejected
            return (0 if rejected else 2), item.txid, item.key

        return sorted(items, key=rank)

    def _why(self, item: Object, covered: dict[str, str]) -> str:
        if item.key in covered:
            return f"{covered[item.key]} holds all of its transactions"
        if isinstance(item, SnapshotItem) and item.generation in self.inventory.rejected:
            return "its generation never became part of the log"
        return "it is older than every rule, and nothing that is kept needs it"


def _guessed(item: Object) -> bool:
    """Whether its end is only what the next name suggests; there may be a hole instead."""
    return isinstance(item, LogItem) and item.level == SEGMENTS and not item.known


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


def _moment(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M}"
