"""Carries out a prune: proofs first, then deletions in their order.

Owns two rules: an object is deleted only after the merge that holds its transactions was proved
to be in the store, and a bucket that forbids deletions is asked once. A crash between any two
deletions leaves every kept point restorable; the next prune continues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from replicator.archive.facts import FactsReader, fits
from replicator.archive.index import EVERY_TRANSACTION, ArchiveObject, Index, PinnedPoint, WalObject
from replicator.archive.keys import Keys
from replicator.archive.listing import list_all
from replicator.archive.pins import list_pins
from replicator.archive.reachable import trust
from replicator.archive.records import PRUNED, add_record
from replicator.errors import AccessDenied, ObjectMissing
from replicator.model import Kind, Retention
from replicator.retention.policy import PruneDecision, Verdict, decide
from replicator.store.base import Store
from replicator.system import clock

# The age of a merge before a prune that does not know the replicator's clock deletes its sources.
GRACE_MS = 3_600_000
REFUSED = "the bucket forbids deletions"


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """An index and the decision about its objects, with nothing unsure left."""

    index: Index
    decision: PruneDecision


@dataclass(frozen=True, slots=True)
class Pruned:
    """The deletions. ``unproved`` were kept because their merge could not be proved; ``refused``
    is the store's reason for refusing the rest, "" if it deleted all; ``versioned`` is True if it
    keeps old versions of deleted objects, which still cost."""

    deleted: tuple[Verdict, ...]
    unproved: tuple[Verdict, ...] = ()
    refused: str = ""
    versioned: bool = False

    @property
    def size(self) -> int:
        return sum(verdict.size for verdict in self.deleted)


def plan_prune(
    store: Store, keys: Keys, rules: Retention, now_ms: int, *, grace_ms: int = GRACE_MS
) -> PrunePlan:
    """The plan of a prune now, from the bucket alone."""
    index, pins = take_index(store, keys), list_pins(store, keys)
    return settle(store, index, pins, rules, now_ms, grace_ms=grace_ms)


def take_index(store: Store, keys: Keys) -> Index:
    """Everything below the prefix, with the facts of the newest segment, and with the snapshots
    judged. Three listings, one HEAD, and one for each generation."""
    index = Index.of(list_all(store, keys))
    newest = index.newest_segment
    if newest is not None:
        index = index.with_objects([FactsReader(store).ask(newest)])
    return judged(store, index)


def judged(store: Store, index: Index) -> Index:
    """The index with the facts that decide which snapshots are trusted. One HEAD a generation;
    ``ObjectMissing`` when an object is gone."""
    reader = FactsReader(store)
    while ask := trust(index).ask:
        index = index.with_objects([reader.ask(ask[0])])
    return index


def settle(
    store: Store,
    index: Index,
    pins: Iterable[PinnedPoint],
    rules: Retention,
    now_ms: int,
    *,
    grace_ms: int,
) -> PrunePlan:
    """Decide, ask the objects the decision is unsure of, and decide again."""
    while True:
        decision = decide(index, pins, rules, now_ms, grace_ms=grace_ms)
        if not decision.unsure:
            return PrunePlan(index, decision)
        index = judged(store, asked(store, index, decision.unsure))


def asked(store: Store, index: Index, items: Iterable[ArchiveObject]) -> Index:
    """The index after asking some objects, without those that are gone."""
    reader = FactsReader(store)
    known: list[ArchiveObject] = []
    gone: list[str] = []
    for item in items:
        try:
            known.append(reader.ask(item))
        except ObjectMissing:
            gone.append(item.key)
    return index.with_objects(known).without(gone)


class Pruner:
    """Deletes; remembers which merges were proved. Before the first deletion by rule up to some
    transaction it adds a record of that, so that ``verify`` does not report the holes as
    losses."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._recorded = 0  # up to this transaction a record exists
        self._proved: dict[str, bool] = {}

    def apply(
        self, plan: PrunePlan, verdicts: Iterable[Verdict], pause: Callable[[], None] = lambda: None
    ) -> Pruned:
        """Carry out ``verdicts``: deletions of the plan, in their order. Calls ``pause`` before
        each request that changes the bucket; it may raise to end the prune."""
        deleted: list[Verdict] = []
        unproved: list[Verdict] = []
        refused = ""
        try:
            for verdict in verdicts:
                if verdict.covered_by is not None and not self._holds(plan, verdict.covered_by):
                    unproved.append(verdict)
                    continue
                pause()
                if verdict.covered_by is None:
                    self._record(plan.decision.window_from)
                self._store.delete(verdict.key)
                deleted.append(verdict)
        except AccessDenied as error:
            refused = f"{REFUSED}: {error}"
        versioned = bool(deleted) and self._store.keeps_versions
        return Pruned(tuple(deleted), tuple(unproved), refused, versioned)

    def _record(self, window_from: int) -> None:
        if window_from > self._recorded:
            add_record(self._store, self._keys, PRUNED, window_from, clock.now_ms(), {})
            self._recorded = window_from

    def _holds(self, plan: PrunePlan, key: str) -> bool:
        if key not in self._proved:
            merge = plan.index.by_key[key]
            self._proved[key] = isinstance(merge, WalObject) and is_stored(self._store, merge)
        return self._proved[key]


def is_stored(store: Store, merge: WalObject) -> bool:
    """True if the store holds the whole merge under its name. One HEAD; if the store keeps no
    metadata, also its first and last bytes."""
    try:
        info, facts = FactsReader(store).current(merge)
    except ObjectMissing:
        return False
    kind = Kind.MERGE if merge.level == EVERY_TRANSACTION else Kind.MERGE_NEWEST
    return (
        info.size == merge.size
        and fits(merge, facts)
        and facts.kind is kind
        and merge.generation in (None, facts.generation)
    )
