"""Where a log did not simply go on: starts of generations, catch-ups, claims; and why.

Each object's metadata names the newest such event before it, so the newest object leads to all of
them, one HEAD each. Metadata is there for people: a store that keeps none, or an object that was
pruned, ends the story early, and nothing else.
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

MOST = 1000  # events of one story; a log that has more has other troubles
KINDS = {
    Kind.GENERATION: "generation",
    Kind.CATCH_UP: "catch-up",
    Kind.MERGE_NEWEST: (STEP := "merge-newest"),
}


@dataclass(frozen=True, slots=True)
class Event:
    """``reason`` and ``host`` (which process on which machine) are "" where nothing tells."""

    txid: int
    at_ms: int
    kind: str  # generation, catch-up, or STEP (squashed before it was sent)
    generation: str
    reason: str
    host: str


def events(store: Store, keys: Keys, first_txids: Sequence[int]) -> tuple[Event, ...]:
    """The events of a log whose segments begin at ``first_txids`` (ascending), oldest first."""
    found: list[Event] = []
    txid = first_txids[-1] if first_txids else 0
    while txid and len(found) < MOST:
        at = bisect_right(first_txids, txid)
        first = first_txids[at - 1] if at else 0
        metadata = _metadata(store, keys.wal(first)) if first else {}
        facts = parse_metadata(metadata)
        if facts is None or facts.last_txid < txid:
            break
        if facts.kind in KINDS:
            found.append(_event(facts, metadata))
        txid = min(facts.last_event, first - 1)
    return tuple(reversed(found))


def _metadata(store: Store, key: str) -> Metadata:
    try:
        return store.head(key).metadata
    except ObjectMissing:  # pruned since it was listed
        return {}


def _event(facts: ObjectFacts, metadata: Metadata) -> Event:
    return Event(
        facts.first_txid,
        facts.created_ms,
        KINDS[facts.kind],
        facts.generation,
        metadata.get("reason", ""),
        metadata.get("host", ""),
    )
