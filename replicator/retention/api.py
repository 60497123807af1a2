"""The past of one database: what a running replicator does for it, and what anybody can do from
the bucket alone.

Owns the wiring of merges and pruning to the cache and to a store; the rules are those of
:mod:`.policy`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from replicator.archive import records
from replicator.archive.index import SEGMENTS, PinnedPoint, WalObject
from replicator.archive.keys import Keys
from replicator.archive.locate import open_archive
from replicator.archive.records import list_pins
from replicator.cache.cache import Cache
from replicator.cache.records import SegmentRecord
from replicator.config.settings import SqliteReplicatorConfig
from replicator.errors import GapError
from replicator.format.object_header import ObjectFacts
from replicator.metrics import Metrics
from replicator.model import Retention
from replicator.retention.merge import MergeSource
from replicator.retention.policy import KeptPoint, Verdict
from replicator.retention.prune import (
    Pruned,
    PrunePlan,
    Pruner,
    plan_prune,
    settle,
    take_index,
)
from replicator.retention.worker import Keeper, Keeping
from replicator.store.address import StoreAddress
from replicator.store.base import Store
from replicator.system import clock
from replicator.system.scheduler import Scheduler

__all__ = [
    "KeptPoint",
    "PrunePlan",
    "Pruned",
    "Verdict",
    "keeper_for",
    "pin",
    "pins",
    "prune",
    "unpin",
]

# -------------------------------------------------------------------- beside a replicator


def keeper_for(
    config: SqliteReplicatorConfig,
    store: Store,
    cache: Cache,
    metrics: Metrics,
    *,
    created_by: str,
    durable_txid: Callable[[], int],
    pause: Callable[[float], None],
    on_trouble: Callable[[str], object],
    scheduler: Scheduler,
) -> Keeper:
    """What merges and prunes while ``config`` is replicated; not started yet."""
    keeping = Keeping(
        store=store,
        keys=Keys(config.address.prefix),
        rules=config.retention,
        appended=partial(_appended, cache, durable_txid),
        cached=partial(_cached, cache),
        metrics=metrics,
        created_by=created_by,
        level=config.compression_level,
        on_merged=cache.merged,
        on_trouble=on_trouble,
        pause=partial(pause, 0.0),
    )
    return Keeper(keeping, clock.now_ms, scheduler)


def _appended(cache: Cache, durable_txid: Callable[[], int], since: int) -> Sequence[WalObject]:
    if durable_txid() <= since:
        return []
    found = []
    for record in cache.records(since + 1):
        if not record.acknowledged:
            break
        found.append(_item(record))
    return found


def _item(record: SegmentRecord) -> WalObject:
    facts = ObjectFacts(
        kind=record.kind,
        generation=record.generation,
        first_txid=record.first_txid,
        last_txid=record.last_txid,
        page_size=record.end.page_size,
        pages=record.state.pages,
        checksum_before=record.checksum_before,
        checksum_after=record.state.checksum,
        created_ms=record.created_ms,
        first_commit_ms=record.first_commit_ms,
        last_commit_ms=record.commit_ms,
        sha256=record.sha256,
        writer="",
    )
    return WalObject(
        record.key,
        SEGMENTS,
        record.first_txid,
        record.last_txid,
        record.size,
        record.delivery.uploaded_ms or record.created_ms,
        facts,
    )


def _cached(cache: Cache, first: int, last: int) -> Sequence[MergeSource]:
    return [
        MergeSource(record.key, record.first_txid, record.last_txid, partial(cache.read, record))
        for record in cache.records(first, last)
        if record.acknowledged and record.stored
    ]


# -------------------------------------------------------------------- from the bucket alone


def prune(
    address: StoreAddress, rules: Retention, *, delete: bool = False
) -> tuple[PrunePlan, Pruned | None]:
    """What the rules keep and delete of the database at ``address``; with ``delete`` it is done.

    Safe while a replicator runs, and while somebody restores. Raises what the store raises;
    a bucket that forbids deletions is said so in :attr:`Pruned.refused`.
    """
    with open_archive(address) as (store, prefix):
        plan = plan_prune(store, Keys(prefix), rules, clock.now_ms())
        if not delete:
            return plan, None
        return plan, Pruner(store, Keys(prefix)).apply(plan, plan.decision.deletions)


def pin(address: StoreAddress, txid: int, note: str = "") -> None:
    """Keep a restore point until it is unpinned, whatever the rules say; ``GapError`` when it
    cannot be restored as it is."""
    with open_archive(address) as (store, prefix):
        keys, point = Keys(prefix), PinnedPoint(txid, note)
        index = take_index(store, keys)
        plan = settle(store, index, [point], Retention(), clock.now_ms(), grace_ms=0)
        if plan.decision.lost_pins:
            raise GapError(
                f"transaction {txid} cannot be restored, so it cannot be kept",
                hint="see replicator history for what can be",
            )
        records.pin(store, keys, point)


def unpin(address: StoreAddress, txid: int) -> None:
    """Leave a restore point to the rules again; ``ReplicatorError`` when it is not pinned."""
    with open_archive(address) as (store, prefix):
        records.unpin(store, Keys(prefix), txid)


def pins(address: StoreAddress) -> tuple[PinnedPoint, ...]:
    """Every pinned restore point."""
    with open_archive(address) as (store, prefix):
        return list_pins(store, Keys(prefix))
