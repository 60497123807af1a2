"""Proof records: the outcome of drills, verifications and prunes. A restore reads none of them.

The name of each in ``proofs/`` holds all that a program needs (time, outcome, transaction), so
that one listing answers; the JSON inside is for people. Records are only ever added; old ones of
an outcome are deleted where the store permits.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from replicator.archive.keys import Keys
from replicator.archive.listing import entries
from replicator.archive.names import Name, ProofName
from replicator.errors import ObjectExists, ReplicatorError
from replicator.store.base import ObjectInfo, Store

PROVEN = "proven"  # a drill restored this transaction and checked it
FAILED = "failed"  # a drill could not
REFUTED = "refuted"  # it could, but a statement of the user's did not hold
DAMAGED = "damaged"  # verify found damage or a gap; the transaction is the newest one known
REPAIRED = "repaired"  # from this transaction on, the newest state can be restored again
PRUNED = "thinned"  # before this transaction retention deleted something
KEPT = 8  # newest records of each outcome
MOST_TRIES = 1000  # keys that other records may occupy before a record is given up

_FAILURES, _CURES = (FAILED, DAMAGED), (PROVEN, REPAIRED)


@dataclass(frozen=True, slots=True)
class ProofRecord:
    """``at_ms`` is a time in ms since the epoch; ``key`` is "" while it is not in the store."""

    key: str
    at_ms: int
    outcome: str
    txid: int


def list_records(store: Store, keys: Keys) -> list[ProofRecord]:
    """All proof records, oldest first. One listing."""
    return sorted_records(entries(store, keys, keys.proof_dir))


def sorted_records(found: Iterable[tuple[Name, ObjectInfo]]) -> list[ProofRecord]:
    """The proof records among the entries of a listing, oldest first."""
    records = (
        ProofRecord(info.key, name.at_ms, name.outcome, name.txid)
        for name, info in found
        if isinstance(name, ProofName)
    )
    return sorted(records, key=lambda record: record.at_ms)


def latest(records: Iterable[ProofRecord], *outcomes: str) -> ProofRecord | None:
    return max(
        (record for record in records if record.outcome in outcomes),
        key=lambda record: record.at_ms,
        default=None,
    )


def unresolved_failure(records: Iterable[ProofRecord]) -> ProofRecord | None:
    """The newest failure that no later proof or repair resolved."""
    kept = list(records)
    failure, cure = latest(kept, *_FAILURES), latest(kept, *_CURES)
    if failure is None or (cure is not None and cure.at_ms > failure.at_ms):
        return None
    return failure


def pruned_before(records: Iterable[ProofRecord]) -> int:
    """The transaction from which on retention deleted nothing; 0: it never did."""
    return max((record.txid for record in records if record.outcome == PRUNED), default=0)


def add_record(
    store: Store, keys: Keys, outcome: str, txid: int, at_ms: int, details: Mapping[str, object]
) -> ProofRecord:
    """Add a record, a millisecond later if that one is taken, and delete the old ones."""
    for left in reversed(range(MOST_TRIES)):
        key = keys.proof(at_ms, outcome, txid)
        body = {"outcome": outcome, "txid": txid, "at_ms": at_ms, **details}
        try:
            store.put(key, json.dumps(body, indent=1, default=str).encode())
            break
        except ObjectExists:
            if not left:
                raise
            at_ms += 1
    _delete_old(store, keys, outcome)
    return ProofRecord(key, at_ms, outcome, txid)


def _delete_old(store: Store, keys: Keys, outcome: str) -> None:
    """A store that forbids deletions keeps them: they are small."""
    with contextlib.suppress(ReplicatorError):
        same = [record for record in list_records(store, keys) if record.outcome == outcome]
        for record in same[:-KEPT]:
            store.delete(record.key)
