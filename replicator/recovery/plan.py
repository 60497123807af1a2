"""Which objects rebuild a database to a transaction: a pure function of an index.

Owns the choice of the snapshot, and the errors for missing transactions. The ways that lead from a
snapshot along the WAL objects come from :mod:`replicator.archive.reachable`: fewest objects first,
then fewest bytes. Refuses to read anything. An object without facts counts as its name suggests; a
plan that proves wrong is made again with the facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from replicator.archive.index import OPEN_END, Index, SnapshotObject, WalObject
from replicator.archive.reachable import Range, Step, Ways, fewest_objects, restorable
from replicator.errors import GapError, NoBackup, ObjectMissing

NEWEST = 4  # snapshots that are preferred to one from which fewer objects lead to the state
_OLDER = "restore with --allow-older to get the newest state that can be proved"


@dataclass(frozen=True, slots=True)
class Plan:
    """A snapshot and the log objects to apply on it, oldest first.

    ``txid`` is the transaction to stop after; None: the end of the last object.
    """

    snapshot: SnapshotObject
    segments: tuple[WalObject, ...]
    txid: int | None

    @property
    def size(self) -> int:
        """Bytes to download."""
        return self.snapshot.size + sum(item.size for item in self.segments)

    @property
    def objects(self) -> int:
        return 1 + len(self.segments)


def plan(index: Index, txid: int | None) -> Plan:
    """The plan for ``txid`` (None: the newest transaction).

    ``GapError`` names the missing txids and the ones that can be restored; ``NoBackup`` means
    that there is nothing at all.
    """
    _refuse_nothing(index)
    goal = _end(index) if txid is None else txid
    usable = [item for item in index.snapshots if item.txid <= goal]
    if not usable:
        raise _before_first(index, goal)
    ways = _ways(index, usable[-1:])
    step = ways.to(goal) or _from_older(index, usable, goal)
    if step is None:
        raise _gap(index, usable[-1], ways, goal)
    return _plan(step, txid)


def _from_older(index: Index, usable: Sequence[SnapshotObject], goal: int) -> Step | None:
    """A way that does not begin with the newest snapshot. If an older one leads there so does the
    newest, unless that is an orphan of a start that crashed, which no object will confirm."""
    return None if goal > _end(index) else _ways(index, usable[:-1]).to(goal)


def newest_reachable(index: Index, txid: int | None) -> Plan:
    """The plan for the newest transaction up to ``txid`` that can be reached."""
    _refuse_nothing(index)
    limit = OPEN_END if txid is None else txid
    usable = [item for item in index.snapshots if item.txid <= limit]
    if not usable:
        raise _before_first(index, limit)
    ways = _ways(index, usable)
    goal = ways.furthest(limit)
    newest = (_ways(index, [item]).to(goal) for item in usable[: -NEWEST - 1 : -1])
    step = next((step for step in newest if step is not None), None) or ways.to(goal)
    assert step is not None  # a way stops there
    return _plan(step, None if goal == OPEN_END else goal)


def window(index: Index) -> str:
    """The restorable transactions in words: ``transactions 3…90 and 120…``."""
    ranges = restorable(index)
    if not ranges:
        return "nothing: no snapshot is left"
    return "transactions " + " and ".join(_range(first, last) for first, last in ranges)


def _plan(step: Step, txid: int | None) -> Plan:
    snapshot, *log = step.way
    assert isinstance(snapshot, SnapshotObject)  # every way begins with one
    return Plan(snapshot, tuple(item for item in log if isinstance(item, WalObject)), txid)


def _ways(index: Index, snapshots: Sequence[SnapshotObject]) -> Ways:
    oldest = min((item.txid for item in snapshots), default=OPEN_END)
    return Ways(snapshots, index.between(oldest + 1, OPEN_END), fewest_objects)


def _end(index: Index) -> int:
    return max(item.last for item in index.wal)


def _refuse_nothing(index: Index) -> None:
    if index.empty:
        raise NoBackup("there is no backup here")
    if not index.wal:
        raise NoBackup(
            "there is a snapshot, but no segment that confirms it",
            hint="a replicator stopped before its first upload was complete; start it again",
            code="unconfirmed_snapshot",
        )


def _before_first(index: Index, goal: int) -> GapError:
    if not index.snapshots:
        return GapError(
            f"the archive holds transactions {_range(index.wal[0].first, _end(index))}, but no "
            "snapshot to start from is left",
            code="no_snapshot",
        )
    first = index.snapshots[0].txid
    return GapError(
        f"transaction {goal} is before the oldest snapshot, {first}; restorable: {window(index)}",
        first_missing=goal,
        last_missing=first - 1,
        restorable=_extent(index),
        code="before_first_snapshot",
    )


def _gap(index: Index, snapshot: SnapshotObject, ways: Ways, goal: int) -> GapError:
    def gap(message: str, missing: Range, *, code: str = "", hint: str = "") -> GapError:
        return GapError(
            f"{message}; restorable: {window(index)}",
            first_missing=missing[0],
            last_missing=missing[1],
            restorable=_extent(index),
            hint=hint,
            code=code,
        )

    end = _end(index)
    if goal > end:
        message = f"transaction {goal} is beyond the end of the archive"
        return gap(message, (end + 1, goal), code="beyond_end")
    foreign = _foreign_start(index.beginning(ways.furthest(OPEN_END) + 1), snapshot)
    if foreign is not None:
        first, generation = foreign.first, foreign.generation
        message = f"transaction {first} begins generation {generation}, whose snapshot is missing"
        return gap(message, (first, goal), code="no_first_snapshot", hint=_OLDER)
    inside = [item for item in index.covering(goal) if not item.divisible]
    if inside:
        first, last = inside[0].first, inside[0].last
        message = (
            f"transactions {_range(first, last)} are kept as one step, and {goal} is not its end"
        )
        hint = f"restore to {first - 1} or {last}"
        return gap(message, (goal, goal), code="inside_step", hint=hint)
    first = ways.furthest(goal) + 1
    following = min((i.first for i in index.wal if i.first > first), default=goal + 1)
    message = f"transactions {_range(first, following - 1)} are missing"
    return gap(message, (first, following - 1), hint=_OLDER)


def listed_but_missing(error: ObjectMissing) -> GapError:
    """The error for a store that lists an object which it does not have."""
    message = f"the store lists an object that it does not have: {error}"
    return GapError(message, code="listed_but_missing")


def _extent(index: Index) -> Range | None:
    """First and last txid that can be restored."""
    ranges = restorable(index)
    return (ranges[0][0], min(ranges[-1][1], index.head)) if ranges else None


def _foreign_start(following: Iterable[WalObject], snapshot: SnapshotObject) -> WalObject | None:
    """The object right after the furthest transaction, when another generation begins there."""
    return next(
        (item for item in following if item.generation not in (None, snapshot.generation)), None
    )


def _range(first: int, last: int) -> str:
    if last >= OPEN_END:
        return f"{first}…"
    return str(first) if first == last else f"{first}…{last}"
