"""From a target to a proved file: plan, try, learn, plan again.

Owns: which snapshot is trusted, what a damaged or vanished object leads to, and, when an older
state was allowed, how many transactions that costs. Refuses to touch the target.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from replicator.archive.catalog import Catalog
from replicator.archive.spans import Plan, log_spans
from replicator.errors import DamageError, GapError, NoBackup, ObjectMissing, ReplicatorError
from replicator.recovery.fetch import Fetcher
from replicator.recovery.partial import Partial
from replicator.recovery.plan import head, newest_reachable, plan
from replicator.recovery.progress import Meter
from replicator.recovery.rebuild import Learnt, Rebuild, Rebuilt
from replicator.system.files import Files

LISTINGS = 3  # that may name an object which is not there, though nothing else is gone


@dataclass(frozen=True, slots=True)
class Recovered:
    """``lost`` counts the transactions that were asked for and could not be had; ``avoided``
    are the keys of damaged objects that another way led around."""

    plan: Plan
    rebuilt: Rebuilt
    lost: int
    avoided: tuple[str, ...]


class Recovery:
    """Recovers one target; ``target`` None is the newest transaction.

    ``detours``: a damaged object is gone around where other objects lead to the same state.
    ``allow_older``: the newest state that can be had will do.
    """

    def __init__(
        self, catalog: Catalog, target: int | None, *, allow_older: bool, detours: bool
    ) -> None:
        self._catalog = catalog
        self._target = target
        self._allow_older = allow_older
        self._detours = detours
        self._avoided: list[DamageError] = []
        self._trusted: set[str] = set()
        self._doubted: set[str] = set()  # damaged once, perhaps only on the way here
        self._listings = 1
        self._newest = 0

    def plan(self) -> Plan:
        """A plan on a snapshot the log vouches for."""
        while True:
            try:
                found = self._make_plan()
                self._newest = max(self._newest, head(self._catalog.listing))
                if found.snapshot.key in self._trusted:
                    return found
                self._examine(found)
            except ObjectMissing as error:
                self._list_again(error)
            except DamageError as error:
                self._leave_out(error)

    def plan_to_known_end(self) -> Plan:
        """A plan whose last object was asked where it ends."""
        while True:
            found = self.plan()
            try:
                for span in found.segments[-1:]:
                    self._catalog.proved(span.item)
            except ObjectMissing as error:
                self._list_again(error)
            except DamageError as error:
                self._leave_out(error)
            else:
                return self.plan()

    def _examine(self, found: Plan) -> None:
        if self._catalog.vouched(found):
            self._trusted.add(found.snapshot.key)
        else:
            self._catalog.exclude(found.snapshot.key)

    def _make_plan(self) -> Plan:
        try:
            return plan(self._catalog.listing, self._target)
        except (GapError, NoBackup) as error:
            if not self._catalog.complete:
                self._catalog.load(self._target, complete=True)
                return self._make_plan()
            if self._catalog.settle():
                return self._make_plan()
            if self._avoided and not self._allow_older:
                raise self._avoided[0] from error  # what the way around came to lack
            if not self._allow_older or isinstance(error, NoBackup):
                raise
            return newest_reachable(self._catalog.listing, self._target)

    def run(self, fetcher: Fetcher, notes: Partial, files: Files, meter: Meter) -> Recovered:
        """Plan and rebuild until a file is proved, or raise what stands in the way."""
        while True:
            found = self.plan()
            try:
                rebuilt = self._attempt(
                    Rebuild(found, self._catalog, fetcher, notes, files, meter), found
                )
            except ObjectMissing as error:
                self._list_again(error)
            except DamageError as error:
                if not self._doubt(error.key, found, notes):
                    self._leave_out(error)
            else:
                if rebuilt is not None:
                    return self._recovered(found, rebuilt)

    def _recovered(self, found: Plan, rebuilt: Rebuilt) -> Recovered:
        lost = self._lost(rebuilt.txid)
        if lost and not self._allow_older and self._avoided:
            raise self._avoided[0]  # it held what was asked for, and nothing else does
        return Recovered(found, rebuilt, lost, tuple(error.key for error in self._avoided))

    def _attempt(self, rebuild: Rebuild, found: Plan) -> Rebuilt | None:
        """None: something was learnt that calls for another plan."""
        try:
            return rebuild.run()
        except Learnt:
            self._catalog.find_generation_end(found)
            return None

    def _list_again(self, error: ObjectMissing) -> None:
        """Objects vanish while a prune runs; as long as they do, the next plan may succeed."""
        if self._catalog.relist(self._target):
            return
        self._listings += 1
        if self._listings == LISTINGS:
            raise GapError(f"listed, but not there: {error}") from error

    def _doubt(self, key: str, found: Plan, notes: Partial) -> bool:
        """Whether to try a snapshot once more from scratch: its parts were proved one by one,
        and what an earlier attempt left was not fetched again."""
        if key != found.snapshot.key or key in self._doubted:
            return False
        self._doubted.add(key)
        notes.clear()
        return True

    def _leave_out(self, error: DamageError) -> None:
        """Plan without a damaged object, if that leads as far, or may lead less far."""
        if not error.key:
            raise error
        self._note_extent(error.key)
        if not (self._allow_older or (self._detours and self._leads_around(error.key))):
            raise error
        self._catalog.exclude(error.key)
        self._avoided.append(error)

    def _leads_around(self, key: str) -> bool:
        """Whether, as far as names tell, the target can be had without this object."""
        if not self._catalog.complete:
            self._catalog.load(self._target, complete=True)
        goal = self._newest if self._target is None else self._target
        try:
            plan(self._catalog.listing.without(key), goal)
        except (GapError, NoBackup):
            return False
        return True

    def _note_extent(self, key: str) -> None:
        """How far the log went, as an object that is of no use may still tell, or its metadata."""
        for span in log_spans(self._catalog.listing):
            if span.key == key:
                with contextlib.suppress(ReplicatorError):
                    self._catalog.facts(span.item)
        self._newest = max(self._newest, head(self._catalog.listing))

    def _lost(self, txid: int) -> int:
        wanted = self._target
        if wanted is None:
            wanted = self._newest_known(txid)
        return max(0, wanted - txid)

    def _newest_known(self, txid: int) -> int:
        """The newest txid; the name of the last object alone does not tell where it ends."""
        last = max(log_spans(self._catalog.listing), key=lambda span: span.last, default=None)
        if last is not None and last.first > txid:
            self._note_extent(last.key)
        return max(self._newest, head(self._catalog.listing))
