"""From a transaction to a proved file: plan, try, learn, plan again.

Owns the trust in a snapshot, the consequence of a damaged or vanished object, and, if an older
state is allowed, the number of transactions that it lacks. Refuses to touch the output.
"""

from __future__ import annotations

import contextlib
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from replicator.archive.index import Index, Overlapping, SnapshotObject, WalObject
from replicator.archive.reachable import judge
from replicator.errors import (
    DamageError,
    GapError,
    NoBackup,
    ObjectMissing,
    ReplicatorError,
    Unreadable,
)
from replicator.format.envelope import damaged
from replicator.recovery.fetch import Fetcher
from replicator.recovery.known_archive import Ask, KnownArchive
from replicator.recovery.limits import DEFAULT_LIMITS, RecoveryLimits
from replicator.recovery.partial import Partial
from replicator.recovery.plan import Plan, listed_but_missing, newest_reachable, plan
from replicator.recovery.progress import Meter
from replicator.recovery.rebuild import PlanOutdated, Rebuild, Rebuilt
from replicator.system.files import Files

LISTINGS = 3  # that may name an object which is not there, though nothing else is gone


@dataclass(frozen=True, slots=True)
class Recovered:
    """``lost`` counts the transactions that were asked for and could not be restored; ``avoided``
    are the keys of damaged objects that other objects replaced."""

    plan: Plan
    rebuilt: Rebuilt
    lost: int
    avoided: tuple[str, ...]


class Planner:
    """Plans and rebuilds one state; ``txid`` None is the newest transaction.

    ``detours``: a damaged object is avoided where other objects lead to the same state.
    ``allow_older``: the newest state that can be restored is accepted.
    """

    def __init__(
        self,
        known: KnownArchive,
        txid: int | None,
        *,
        allow_older: bool,
        detours: bool,
        limits: RecoveryLimits = DEFAULT_LIMITS,
    ) -> None:
        self._known = known
        self._txid = txid
        self._allow_older = allow_older
        self._detours = detours
        self._limits = limits
        self._avoided: list[Unreadable] = []
        self._trusted: set[str] = set()
        self._doubted: set[str] = set()  # damaged once, perhaps only on the way here
        self._useless = 0  # objects left out
        self._useless_since = 0.0  # monotonic
        self._sifted = False
        self._listings = 1
        self._newest = 0

    # -------------------------------------------------------------------------------- plans

    def plan(self) -> Plan:
        """A plan on a snapshot that the WAL objects confirm."""
        while True:
            try:
                found = self._make_plan()
                self._newest = max(self._newest, self._known.index.head)
                if found.snapshot.key in self._trusted:
                    return found
                self._examine(found)
            except Overlapping as error:
                self._sift_after(error)
            except ObjectMissing as error:
                self._list_again(error)
            except Unreadable as error:
                self._leave_out(error)

    def plan_to_known_end(self) -> Plan:
        """A plan that knows the end of its last object."""
        while True:
            found = self.plan()
            try:
                for item in found.segments[-1:]:
                    self._known.proved(item)
            except ObjectMissing as error:
                self._list_again(error)
            except Unreadable as error:
                self._leave_out(error)
            else:
                return self.plan()

    def _make_plan(self) -> Plan:
        known = self._known
        try:
            return plan(known.index, self._txid)
        except (GapError, NoBackup) as error:
            if not known.complete:
                known.load(self._txid, complete=True)
                return self._make_plan()
            if known.settle():
                return self._make_plan()
            if self._avoided and not self._allow_older:
                raise self._avoided[0] from error  # the other way needed it after all
            if not self._allow_older or isinstance(error, NoBackup):
                raise
            return newest_reachable(known.index, self._txid)

    # ------------------------------------------------------------------- trust in snapshots

    def _examine(self, found: Plan) -> None:
        if self._confirms(found):
            self._trusted.add(found.snapshot.key)
        else:
            self._exclude(found.snapshot.key)

    def _confirms(self, found: Plan) -> bool:
        """True if the WAL objects confirm the snapshot. Metadata suffices for a yes, which the
        segments of the plan are going to prove, never for a no."""
        known, snapshot = self._known, found.snapshot
        trailer = known.reader.tail(snapshot).trailer
        if trailer.last_txid != snapshot.txid:
            raise damaged(snapshot.key, "it does not match its name", code="other_object")
        checksum = trailer.checksum_after
        return (
            bool(found.segments)
            and self._judged(snapshot, checksum, lambda: known.index, known.facts)
        ) or self._judged(snapshot, checksum, lambda: known.proved_index, known.proved)

    def _judged(
        self, snapshot: SnapshotObject, checksum: int, index: Callable[[], Index], ask: Ask
    ) -> bool:
        while True:
            judgement = judge(index(), snapshot, checksum)
            if judgement.by is None and not self._known.complete:
                self._known.load(snapshot.txid, complete=True)
            elif judgement.by is None or judgement.settled:
                return judgement.trusted
            else:
                ask(judgement.by)

    # ------------------------------------------------------------------------------ attempts

    def run(self, fetcher: Fetcher, parts: Partial, files: Files, meter: Meter) -> Recovered:
        """Plan and rebuild until a file is proved; raise the error that prevents it."""
        while True:
            found = self.plan()
            try:
                rebuilt = self._attempt(
                    Rebuild(found, self._known, fetcher, parts, files, meter), found
                )
            except ObjectMissing as error:
                self._list_again(error)
            except Unreadable as error:
                if not self._doubt(error.key, found, parts):
                    self._leave_out(error)
            else:
                if rebuilt is not None:
                    return self._recovered(found, rebuilt)

    def _attempt(self, rebuild: Rebuild, found: Plan) -> Rebuilt | None:
        """None: the facts of an object require another plan."""
        try:
            return rebuild.run()
        except PlanOutdated:
            self._find_generation_end(found)
            return None

    def _find_generation_end(self, found: Plan) -> None:
        """Learn where the generation of the snapshot ends, if some later object of the plan is
        known to be of another one."""
        own, known = found.snapshot.generation, self._known.index.by_key
        items = [known.get(item.key, item) for item in found.segments]
        foreign = [at for at, item in enumerate(items) if item.generation not in (None, own)]
        if foreign:
            bisect_left(
                found.segments[: foreign[0]],
                1,
                key=lambda item: self._known.facts(item).generation != own,
            )

    def _recovered(self, found: Plan, rebuilt: Rebuilt) -> Recovered:
        lost, avoided = self.losses(rebuilt.txid)
        return Recovered(found, rebuilt, lost, avoided)

    def losses(self, txid: int) -> tuple[int, tuple[str, ...]]:
        """The number of transactions after ``txid`` that were asked for, and the keys of the
        objects left out. Raises the damage of the first if an older state is not allowed."""
        lost = self._lost(txid)
        if lost and not self._allow_older and self._avoided:
            raise self._avoided[0]  # it held the wanted transactions, and nothing else does
        return lost, tuple(error.key for error in self._avoided)

    def _list_again(self, error: ObjectMissing) -> None:
        """Objects vanish while a prune runs; as long as they do, the next plan may succeed."""
        if self._known.relist(self._txid):
            return
        self._listings += 1
        if self._listings == LISTINGS:
            raise listed_but_missing(error) from error

    def _doubt(self, key: str, found: Plan, parts: Partial) -> bool:
        """True if a snapshot is tried once more from scratch: its parts were proved one by one,
        and those of an earlier attempt were not fetched again."""
        if key != found.snapshot.key or key in self._doubted:
            return False
        self._doubted.add(key)
        parts.clear()
        return True

    def _leave_out(self, error: Unreadable) -> None:
        """Plan without an object that cannot be read, if that leads as far, or may lead less."""
        if not error.key:
            raise error
        self._note_extent(error.key)
        if not (self._allow_older or (self._detours and self._leads_around(error.key))):
            raise error
        self._avoided.append(error)
        self._exclude(error.key)

    def _sift(self) -> None:
        self._sifted = True
        self._avoided += self._known.sift(self._txid)

    def _sift_after(self, error: Overlapping) -> None:
        """Perhaps most of the names are made up: then it does not happen again."""
        if self._sifted:
            raise error
        self._sift()

    def _exclude(self, key: str) -> None:
        """Plan without an object. Of a bucket full of useless objects, all are found at once: to
        find them one by one would take a plan for each."""
        self._known.exclude(key)
        self._useless_since = self._useless_since or time.monotonic()
        self._useless += 1
        if self._useless == self._limits.one_by_one and not self._sifted:
            self._sift()
        spent = time.monotonic() - self._useless_since
        if self._useless > self._limits.most_useless and spent > self._limits.useless_patience:
            raise DamageError(
                f"{key}: it is damaged, like {self._useless - 1} objects that were read before it, "
                f"for {spent:.0f} s",
                key=key,
                code="too_many_damaged",
                hint="replicator verify --data lists them; name an earlier transaction with --txid "
                "or --at to read none of the later ones",
            )

    def _leads_around(self, key: str) -> bool:
        """True if, by the names, the state can be restored without this object."""
        if not self._known.complete:
            self._known.load(self._txid, complete=True)
        goal = self._newest if self._txid is None else self._txid
        try:
            plan(self._known.index_without(key), goal)
        except (GapError, NoBackup, Overlapping):
            return False
        return True

    # ------------------------------------------------------------------------ what was lost

    def _note_extent(self, key: str) -> None:
        """Learn how far the archive went, from a useless object or from its metadata."""
        item = self._known.index.by_key.get(key)
        if isinstance(item, WalObject):
            with contextlib.suppress(ReplicatorError):
                self._known.facts(item)
        self._newest = max(self._newest, self._known.index.head)

    def _lost(self, txid: int) -> int:
        wanted = self._newest_known(txid) if self._txid is None else self._txid
        return max(0, wanted - txid)

    def _newest_known(self, txid: int) -> int:
        """The newest txid. The name of the last object does not hold its end."""
        last = max(self._known.index.wal, key=lambda item: item.last, default=None)
        if last is not None and last.first > txid:
            self._note_extent(last.key)
        return max(self._newest, self._known.index.head)
