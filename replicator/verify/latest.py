"""Proves that the newest transaction can be restored, without a disk.

Owns the plan that a restore would follow, every byte of its objects, and the links between them.
Costs the bytes of one restore, and the memory of a few requests.
"""

from __future__ import annotations

from functools import partial

from replicator.archive.facts import FactsReader
from replicator.archive.index import SnapshotObject, WalObject
from replicator.archive.keys import Keys
from replicator.errors import GapError
from replicator.format.envelope import damaged, discontinuous
from replicator.format.object_header import ObjectFacts
from replicator.recovery.fetch import Fetcher
from replicator.recovery.known_archive import KnownArchive
from replicator.recovery.limits import DEFAULT_LIMITS
from replicator.recovery.plan import Plan
from replicator.recovery.planner import Planner
from replicator.recovery.progress import Meter
from replicator.store.base import Store
from replicator.verify.objects import verify_snapshot, verify_wal_object, weight


def verify_latest(store: Store, prefix: str, *, at_least: int = 0) -> int:
    """The newest txid of the archive, which every object on the way to it proves.

    ``DamageError`` names an object; ``GapError`` if something is missing, also when the archive
    ends before ``at_least``. ``NoBackup`` if there is nothing.
    """
    view = KnownArchive(store, Keys(prefix))
    view.load(None)
    planner = Planner(view, None, allow_older=False, detours=False)
    proved: dict[str, ObjectFacts] = {}
    with Fetcher(store, Meter(None), DEFAULT_LIMITS) as fetcher:
        plan = planner.plan()
        while True:
            _prove_log(fetcher, plan, proved)
            for item in plan.segments:
                view.learn(item.key, proved[item.key])
            plan = planner.plan()
            if all(item.key in proved for item in plan.segments):
                break
        for _ in verify_snapshot(fetcher, view.reader, plan.snapshot):
            pass
    return _linked(view.reader, plan, proved, at_least)


def _prove_log(fetcher: Fetcher, plan: Plan, proved: dict[str, ObjectFacts]) -> None:
    def one(item: WalObject) -> tuple[str, ObjectFacts]:
        return item.key, verify_wal_object(fetcher, item, None)

    new = [item for item in plan.segments if item.key not in proved]
    jobs = ((weight(item, fetcher.limits), partial(one, item)) for item in new)
    proved |= dict(fetcher.in_order(jobs))


def _linked(reader: FactsReader, plan: Plan, proved: dict[str, ObjectFacts], at_least: int) -> int:
    snapshot = plan.snapshot
    txid, checksum = snapshot.txid, reader.tail(snapshot).trailer.checksum_after
    for item in plan.segments:
        facts = proved[item.key]
        _require_link(snapshot, item, facts, txid, checksum)
        txid, checksum = facts.last_txid, facts.checksum_after
    if txid < at_least:
        raise GapError(
            f"the archive ends at transaction {txid}, but {at_least} was acknowledged",
            first_missing=txid + 1,
            last_missing=at_least,
            code="beyond_end",
        )
    return txid


def _require_link(
    snapshot: SnapshotObject, item: WalObject, facts: ObjectFacts, txid: int, checksum: int
) -> None:
    """Only the first object may begin before the snapshot, where no checksum can be compared."""
    if facts.generation != snapshot.generation:
        raise damaged(
            item.key,
            f"it belongs to generation {facts.generation}, the snapshot "
            f"before it to {snapshot.generation}",
        )
    if facts.first_txid == txid + 1 and facts.checksum_before != checksum:
        raise discontinuous(item.key, f"transaction {txid}")
