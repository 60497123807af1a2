"""The past of one database: what a running replicator does for it, and what anybody can do from
the bucket alone.

Owns the wiring of merges and pruning to the cache and to a store; the rules are those of
:mod:`.policy`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from replicator.archive import records
from replicator.archive.index import PinnedPoint
from replicator.archive.keys import Keys
from replicator.archive.locate import open_archive
from replicator.archive.records import list_pins
from replicator.config.settings import SqliteReplicatorConfig
from replicator.errors import GapError
from replicator.metrics import Metrics
from replicator.model import Retention
from replicator.retention.limits import RetentionLimits
from replicator.retention.policy import KeptPoint, Verdict
from replicator.retention.prune import (
    Pruned,
    PrunePlan,
    Pruner,
    plan_prune,
    settle,
    take_index,
)
from replicator.retention.segments import Segments
from replicator.retention.worker import Keeper, Keeping
from replicator.store.address import StoreAddress
from replicator.store.base import Store
from replicator.system import clock
from replicator.system.mailbox import Mailbox
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
    segments: Segments,
    metrics: Metrics,
    mailbox: Mailbox,
    scheduler: Scheduler,
    limits: RetentionLimits,
    *,
    created_by: str,
    pause: Callable[[float], None],
) -> Keeper:
    """Makes the worker that merges and prunes while ``config`` is replicated; not started yet.

    ``pause`` raises once the replicator stops.
    """
    keeping = Keeping(
        store=store,
        keys=Keys(config.address.prefix),
        rules=config.retention,
        segments=segments,
        metrics=metrics,
        mailbox=mailbox,
        limits=limits,
        created_by=created_by,
        level=config.compression_level,
        pause=partial(pause, 0.0),
    )
    return Keeper(keeping, clock.now_ms, scheduler)


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
