"""The events of an archive: starts of generations, catch-ups, claims; and why they happened.

Each object's metadata names the newest event before it, so the newest object leads to all of them,
one HEAD each. This metadata is for people: a store that keeps none, or an object that was pruned,
ends the list early and has no other consequence.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from replicator.archive.keys import Keys
from replicator.errors import ObjectMissing
from replicator.format.object_header import ObjectFacts, parse_metadata
from replicator.model import Kind
from replicator.store.base import Metadata, Store

MOST = 1000  # events listed; an archive with more of them has other problems
KINDS = {
    Kind.GENERATION: "generation",
    Kind.CATCH_UP: "catch-up",
    Kind.MERGE_NEWEST: "merge-newest",
}


@dataclass(frozen=True, slots=True)
class Event:
    """``reason`` and ``host`` (which process on which machine) are "" where the store has none."""

    txid: int
    at_ms: int
    kind: str  # generation, catch-up, or merge-newest (squashed before it was sent)
    generation: str
    reason: str
    host: str


def events(store: Store, keys: Keys, first_txids: Sequence[int]) -> tuple[Event, ...]:
    """The events of an archive whose segments begin at ``first_txids`` (ascending), oldest
    first."""
    return tuple(event_of(*told) for told in event_metadata(store, keys, first_txids))


def event_metadata(
    store: Store, keys: Keys, first_txids: Sequence[int]
) -> list[tuple[ObjectFacts, Metadata]]:
    """The facts and the whole metadata of each event's object, oldest first."""
    found: list[tuple[ObjectFacts, Metadata]] = []
    txid = first_txids[-1] if first_txids else 0
    for _ in range(MOST):
        if not txid:
            break
        at = bisect_right(first_txids, txid)
        first = first_txids[at - 1] if at else 0
        metadata = _metadata(store, keys.wal(first)) if first else {}
        facts = parse_metadata(metadata)
        if facts is None or facts.last_txid < txid:
            break
        if facts.kind in KINDS:
            found.append((facts, metadata))
        txid = min(facts.last_event, first - 1)
    return found[::-1]


def event_of(facts: ObjectFacts, metadata: Metadata) -> Event:
    return Event(
        facts.first_txid,
        facts.created_ms,
        KINDS[facts.kind],
        facts.generation,
        metadata.get("reason", ""),
        metadata.get("host", ""),
    )


def _metadata(store: Store, key: str) -> Metadata:
    try:
        return store.head(key).metadata
    except ObjectMissing:  # pruned since it was listed
        return {}
