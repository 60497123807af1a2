"""Carrying out a decision: proofs first, then deletions in their order.

Owns: that nothing goes before what stands in for it is proved to be in the store, and that a
bucket which forbids deletions is asked once, not again and again. A crash between any two
deletions leaves every kept point restorable; the next prune goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from replicator.archive.inventory import EVERY_TRANSACTION, Inventory, LogItem
from replicator.archive.keys import Keys
from replicator.archive.listing import learn, read_facts, take_inventory
from replicator.archive.records import THINNED, note
from replicator.errors import AccessDenied, ObjectMissing
from replicator.format.object_header import ObjectFacts, parse_metadata
from replicator.model import Kind, Retention
from replicator.retention.policy import Decision, Verdict, decide
from replicator.store.base import Store
from replicator.system import clock

# How long a merge must be there before a prune that does not know the clock of the replicator
# removes what it stands for.
GRACE_MS = 3_600_000
REFUSED = "the bucket forbids deletions"


@dataclass(frozen=True, slots=True)
class Plan:
    """An inventory and what the policy says of it, with nothing unsure left."""

    inventory: Inventory
    decision: Decision


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was deleted. ``unproved`` were kept because their merge could not be proved;
    ``refused`` says why the store deleted nothing more, "" when it did all; ``versioned`` that
    it keeps old versions of what was deleted, which go on to cost."""

    deleted: tuple[Verdict, ...]
    unproved: tuple[Verdict, ...] = ()
    refused: str = ""
    versioned: bool = False

    @property
    def size(self) -> int:
        return sum(verdict.size for verdict in self.deleted)


def plan_prune(
    store: Store, keys: Keys, rules: Retention, now_ms: int, *, grace_ms: int = GRACE_MS
) -> Plan:
    """What a prune would do now, from the bucket alone."""
    return settle(store, take_inventory(store, keys), rules, now_ms, grace_ms=grace_ms)


def settle(
    store: Store, inventory: Inventory, rules: Retention, now_ms: int, *, grace_ms: int
) -> Plan:
    """Decide, ask the objects the decision is unsure of, and decide again."""
    while True:
        decision = decide(inventory, rules, now_ms, grace_ms=grace_ms)
        if not decision.unsure:
            return Plan(inventory, decision)
        inventory = learn(store, inventory, decision.unsure)


class Pruner:
    """Deletes; remembers which merges were proved. Before the past is thinned for the first
    time up to some transaction, a note of that is left in the bucket, so that nobody who looks
    takes the holes for losses."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._noted = 0  # up to this transaction a note says so
        self._proved: dict[str, bool] = {}

    def apply(
        self, plan: Plan, verdicts: Iterable[Verdict], pause: Callable[[], None] = lambda: None
    ) -> Pruned:
        """Delete what ``verdicts`` (deletions of the plan, in their order) say. ``pause`` is
        called before each request that changes the bucket and may raise to end it."""
        deleted: list[Verdict] = []
        unproved: list[Verdict] = []
        refused = ""
        try:
            for verdict in verdicts:
                if verdict.stands_in is not None and not self._holds(plan, verdict.stands_in):
                    unproved.append(verdict)
                    continue
                pause()
                if verdict.stands_in is None:
                    self._note(plan.decision.window_from)
                self._store.delete(verdict.key)
                deleted.append(verdict)
        except AccessDenied as error:
            refused = f"{REFUSED}: {error}"
        versioned = bool(deleted) and self._store.keeps_versions
        return Pruned(tuple(deleted), tuple(unproved), refused, versioned)

    def _note(self, window_from: int) -> None:
        if window_from > self._noted:
            note(self._store, self._keys, THINNED, window_from, clock.now_ms(), {})
            self._noted = window_from

    def _holds(self, plan: Plan, key: str) -> bool:
        if key not in self._proved:
            self._proved[key] = proved(self._store, plan.inventory.index[key])
        return self._proved[key]


def proved(store: Store, merge: LogItem) -> bool:
    """Whether the store holds the merge whole, as its name says. One HEAD; where the store
    keeps no metadata, its first and last bytes."""
    try:
        info = store.head(merge.key)
        facts = parse_metadata(info.metadata) or read_facts(store, merge.key, info.size)
    except ObjectMissing:
        return False
    return info.size == merge.size and says(facts, merge)


def says(facts: ObjectFacts, merge: LogItem) -> bool:
    """Whether the facts are those of the merge."""
    kind = Kind.MERGE if merge.level == EVERY_TRANSACTION else Kind.MERGE_NEWEST
    return (
        facts.kind is kind
        and (facts.first_txid, facts.last_txid) == (merge.first, merge.last)
        and merge.generation in (None, facts.generation)
    )
