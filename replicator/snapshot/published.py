"""The snapshots that the store has: the newest of a generation, and the note about it.

Owns: one listing, and ``metadata.json``, on which nothing depends. Refuses: to make snapshots.
"""

from __future__ import annotations

import json
import logging

from replicator.archive.keys import Keys
from replicator.archive.listing import list_snapshots
from replicator.errors import ReplicatorError
from replicator.snapshot.schedule import SnapshotFacts
from replicator.store.base import Store

log = logging.getLogger(__name__)


def newest_stored(store: Store, keys: Keys, generation: str) -> SnapshotFacts | None:
    """The newest snapshot of a generation that the store has; one listing."""
    found = [
        SnapshotFacts(item.txid, item.stored_ms, item.size)
        for item in list_snapshots(store, keys)
        if item.generation == generation
    ]
    return max(found, key=lambda facts: facts.txid, default=None)


def describe(store: Store, keys: Keys, database: str, facts: SnapshotFacts) -> None:
    """Writes ``metadata.json`` for users who look into the bucket. A failure is only logged."""
    note = {
        "database": database,
        "newest_snapshot_txid": facts.txid,
        "newest_snapshot_ms": facts.at_ms,
        "written_by": "replicator",
        "format": 1,
    }
    try:
        store.put(keys.metadata, json.dumps(note, indent=1).encode(), if_absent=False)
    except ReplicatorError as error:
        log.info("%s was not written: %s", keys.metadata, error)
