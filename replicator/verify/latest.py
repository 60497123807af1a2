"""Whether the newest transaction can be restored, read and proved without a disk.

Owns: the very plan a restore would follow, every byte of its objects, and the links between
them. Costs the bytes of one restore, and the memory of a few requests.
"""

from __future__ import annotations

from functools import partial

from replicator.archive.catalog import Catalog, known_from
from replicator.archive.keys import SnapshotKey
from replicator.archive.spans import Plan, Span
from replicator.errors import DamageError, GapError
from replicator.format.envelope import damaged
from replicator.format.object_header import ObjectFacts
from replicator.recovery.fetch import Fetcher
from replicator.recovery.progress import Meter
from replicator.recovery.recovery import Recovery
from replicator.store.base import Store
from replicator.verify.objects import prove_log_object, prove_snapshot, weight


def prove_present(store: Store, prefix: str, *, at_least: int = 0) -> int:
    """The newest txid of the log, which every object on the way to it proves.

    ``DamageError`` names an object; ``GapError`` if something is missing, also when the log
    ends before ``at_least``. ``NoBackup`` if there is nothing.
    """
    catalog = Catalog(store, prefix)
    catalog.load(None)
    recovery = Recovery(catalog, None, allow_older=False, detours=False)
    proved: dict[str, ObjectFacts] = {}
    with Fetcher(store, Meter(None)) as fetcher:
        plan = recovery.plan()
        while True:
            _prove_log(fetcher, plan, proved)
            for span in plan.segments:
                catalog.learn(span.key, known_from(proved[span.key]))
            plan = recovery.plan()
            if all(span.key in proved for span in plan.segments):
                break
        for _ in prove_snapshot(fetcher, catalog, plan.snapshot):
            pass
    return _linked(catalog, plan, proved, at_least)


def _prove_log(fetcher: Fetcher, plan: Plan, proved: dict[str, ObjectFacts]) -> None:
    def one(span: Span) -> tuple[str, ObjectFacts]:
        return span.key, prove_log_object(fetcher, span.item, None)

    new = [span for span in plan.segments if span.key not in proved]
    proved |= dict(fetcher.in_order((weight(span.item), partial(one, span)) for span in new))


def _linked(catalog: Catalog, plan: Plan, proved: dict[str, ObjectFacts], at_least: int) -> int:
    snapshot = plan.snapshot
    txid, checksum = snapshot.txid, catalog.tail(snapshot).trailer.checksum_after
    for span in plan.segments:
        facts = proved[span.key]
        _require_link(snapshot, span, facts, txid, checksum)
        txid, checksum = facts.last_txid, facts.checksum_after
    if txid < at_least:
        raise GapError(
            f"the log in the bucket ends at transaction {txid}, but {at_least} was acknowledged"
        )
    return txid


def _require_link(
    snapshot: SnapshotKey, span: Span, facts: ObjectFacts, txid: int, checksum: int
) -> None:
    """Only the first object may begin before the snapshot, where no checksum can be compared."""
    if facts.generation != snapshot.generation:
        raise damaged(
            span.key,
            f"it belongs to generation {facts.generation}, the snapshot "
            f"before it to {snapshot.generation}",
        )
    if facts.first_txid == txid + 1 and facts.checksum_before != checksum:
        raise DamageError(
            f"{span.key}: it does not continue transaction {txid}: the database checksums differ",
            key=span.key,
        )
