"""From a target to a proved file: plan, try, learn, plan again.

Owns: which snapshot is trusted, what a damaged or vanished object leads to, and, when an older
state was allowed, how many transactions that costs. Refuses to touch the target.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from replicator.edge.files import Files
from replicator.errors import DamageError, GapError, ObjectMissing, ReplicatorError
from replicator.recover.catalog import Catalog
from replicator.recover.fetch import Fetcher
from replicator.recover.partial import Partial
from replicator.recover.plan import OPEN_END, Plan, head, log_spans, newest_reachable, plan
from replicator.recover.progress import Meter
from replicator.recover.rebuild import Learnt, Rebuild, Rebuilt

LISTINGS = 3  # an object may vanish between listing and reading while a prune runs


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
        self._newest = 0

    def plan(self) -> Plan:
        """A plan on a snapshot the log vouches for."""
        while True:
            found = self._make_plan()
            self._newest = max(self._newest, head(self._catalog.listing))
            if found.snapshot.key in self._trusted:
                return found
            if self._catalog.vouched(found):
                self._trusted.add(found.snapshot.key)
            else:
                self._catalog.exclude(found.snapshot.key)

    def _make_plan(self) -> Plan:
        try:
            return plan(self._catalog.listing, self._target)
        except GapError:
            if not self._catalog.complete:
                self._catalog.load(self._target, complete=True)
                return self._make_plan()
            if not self._allow_older:
                raise
            return newest_reachable(self._catalog.listing, self._target)

    def run(self, fetcher: Fetcher, notes: Partial, files: Files, meter: Meter) -> Recovered:
        vanished = 0
        while True:
            try:
                found = self.plan()
                rebuilt = Rebuild(found, self._catalog, fetcher, notes, files, meter).run()
                return Recovered(found, rebuilt, self._lost(rebuilt.txid))
            except Learnt:
                continue
            except ObjectMissing as error:
                vanished += 1
                if vanished == LISTINGS:
                    raise GapError(f"listed, but not there: {error}") from error
                self._catalog.load(self._target, complete=self._catalog.complete)
            except DamageError as error:
                self._give_up_on(error, notes)

    def _give_up_on(self, error: DamageError, notes: Partial) -> None:
        """Try again from scratch once for a snapshot, whose parts were only proved one by one;
        then leave the object out, if that was allowed."""
        snapshots = {item.key for item in self._catalog.listing.snapshots}
        if error.key in snapshots - self._doubted:
            self._doubted.add(error.key)
            notes.clear()
            return
        if not self._allow_older or not error.key:
            raise error
        self._note_extent(error.key)
        self._catalog.exclude(error.key)

    def _note_extent(self, key: str) -> None:
        """How far the log went, as the metadata of a damaged object may still tell."""
        listing = self._catalog.listing
        for span in log_spans(listing):
            if span.key == key:
                with contextlib.suppress(ReplicatorError):
                    self._catalog.facts(span.item)
        self._newest = max(self._newest, head(self._catalog.listing))

    def _lost(self, txid: int) -> int:
        wanted = self._target
        if wanted is None:
            wanted = max(self._newest, head(self._catalog.listing))
        return max(0, wanted - txid) if wanted < OPEN_END else 0
