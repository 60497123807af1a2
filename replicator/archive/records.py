"""What was proved, what was found and what was thinned, as small objects in ``proofs/``.

The name of each tells all that a machine needs (when, what, which transaction), so one listing
answers; the JSON inside is for people. Notes are only ever added; old ones of a kind give way
where the store permits. A restore reads none of them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping

from replicator.archive.keys import Keys, ProofKey, parse_proof_key
from replicator.errors import ObjectExists, ReplicatorError
from replicator.store.base import Store

PROVEN = "proven"  # a drill restored this transaction and checked it
FAILED = "failed"  # a drill could not
REFUTED = "refuted"  # it could, but a statement of the user's did not hold
DAMAGED = "damaged"  # verify found damage or a gap; the transaction is the newest one known
REPAIRED = "repaired"  # from this transaction on, the present can be restored again
THINNED = "thinned"  # before this transaction retention took something away
KEPT = 8  # newest notes of each kind

_TROUBLE, _CURE = (FAILED, DAMAGED), (PROVEN, REPAIRED)


def notes(store: Store, keys: Keys) -> list[ProofKey]:
    """All of them, oldest first; one listing."""
    found = (parse_proof_key(keys.prefix, info.key) for info in store.list(keys.proof_dir))
    return sorted((note for note in found if note is not None), key=lambda note: note.at_ms)


def newest(found: Iterable[ProofKey], *outcomes: str) -> ProofKey | None:
    return max(
        (note for note in found if note.outcome in outcomes),
        key=lambda note: note.at_ms,
        default=None,
    )


def standing_trouble(found: Iterable[ProofKey]) -> ProofKey | None:
    """The newest trouble that nothing has cured since."""
    kept = list(found)
    trouble, cure = newest(kept, *_TROUBLE), newest(kept, *_CURE)
    if trouble is None or (cure is not None and cure.at_ms > trouble.at_ms):
        return None
    return trouble


def thinned_before(found: Iterable[ProofKey]) -> int:
    """The transaction from which on nothing was taken away."""
    return max((note.txid for note in found if note.outcome == THINNED), default=0)


def note(
    store: Store, keys: Keys, outcome: str, txid: int, at_ms: int, details: Mapping[str, object]
) -> ProofKey:
    """Add one, a millisecond later if that one is taken, and let old ones go."""
    while True:
        key = keys.proof(at_ms, outcome, txid)
        body = {"outcome": outcome, "txid": txid, "at_ms": at_ms, **details}
        try:
            store.put(key, json.dumps(body, indent=1, default=str).encode())
            break
        except ObjectExists:
            at_ms += 1
    _let_go(store, keys, outcome)
    return ProofKey(key, at_ms, outcome, txid)


def _let_go(store: Store, keys: Keys, outcome: str) -> None:
    """A store that forbids it keeps them: they are small."""
    with contextlib.suppress(ReplicatorError):
        same = [each for each in notes(store, keys) if each.outcome == outcome]
        for each in same[:-KEPT]:
            store.delete(each.key)
