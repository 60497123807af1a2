"""From a target to a proved file: plan, try, learn, plan again.

Owns: which snapshot is trusted, what a damaged or vanished object leads to, and, when an older
state was allowed, how many transactions that costs. Refuses to touch the target.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from replicator.edge.files import Files
from replicator.errors import DamageError, GapError, NoBackup, ObjectMissing, ReplicatorError
from replicator.recover.catalog import Catalog
from replicator.recover.fetch import Fetcher
from replicator.recover.partial import Partial
from replicator.recover.plan import Plan, head, log_spans, newest_reachable, plan
from replicator.recover.progress import Meter
from replicator.recover.rebuild import Learnt, Rebuild, Rebuilt

LISTINGS = 3  # that may name an object which is not there, though nothing else is gone


@dataclass(frozen=True, slots=True)
class Recovered:
    """``lost`` counts the transactions that were asked for and could not be had."""

    plan: Plan
    rebuilt: Rebuilt
    lost: int


class Recovery:
    """Recovers one target; ``target`` None is the newest transaction."""

    def __init__(self, catalog: Catalog, target: int | None, *, allow_older: bool) -> None:
        self._catalog = catalog
        self._target = target
        self._allow_older = allow_older
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
            if not self._allow_older or isinstance(error, NoBackup):
                raise
            return newest_reachable(self._catalog.listing, self._target)

    def run(self, fetcher: Fetcher, notes: Partial, files: Files, meter: Meter) -> Recovered:
        """Plan and rebuild until a file is proved, or raise what stands in the way."""
        while True:
            found = self.plan()
            try:
                rebuilt = self._attempt(Rebuild(
                    found, self._catalog, fetcher, notes, files, meter), found)
                if rebuilt is not None:
                    return Recovered(found, rebuilt, self._lost(rebuilt.txid))
            except ObjectMissing as error:
                self._list_again(error)
            except DamageError as error:
                if not self._doubt(error.key, found, notes):
                    self._leave_out(error)

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
        """Plan without a damaged object, if that was allowed."""
        if not self._allow_older or not error.key:
            raise error
        self._note_extent(error.key)
        self._catalog.exclude(error.key)

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
