"""Retention of one database: the worker of a running replicator, and commands on the bucket alone.

Owns the wiring of merges and pruning to the cache and to a store; :mod:`.policy` owns the rules.
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
from replicator.retention.worker import RetentionSteps, RetentionWorker
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
    "pin",
    "pins",
    "prune",
    "retention_worker",
    "unpin",
]

# -------------------------------------------------------------------- within a replicator


def retention_worker(
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
) -> RetentionWorker:
    """Makes the worker that merges and prunes while ``config`` is replicated; not started yet.

    ``pause`` raises once the replicator stops.
    """
    steps = RetentionSteps(
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
    return RetentionWorker(steps, clock.now_ms, scheduler)


# -------------------------------------------------------------------- from the bucket alone


def prune(
    address: StoreAddress, rules: Retention, *, delete: bool = False
) -> tuple[PrunePlan, Pruned | None]:
    """The objects of the database at ``address`` that the rules keep and delete; with ``delete``
    these are deleted.

    Safe during replication, and during restores. Raises the errors of the store; if a bucket
    forbids deletions, :attr:`Pruned.refused` holds the reason.
    """
    with open_archive(address) as (store, prefix):
        plan = plan_prune(store, Keys(prefix), rules, clock.now_ms())
        if not delete:
            return plan, None
        return plan, Pruner(store, Keys(prefix)).apply(plan, plan.decision.deletions)


def pin(address: StoreAddress, txid: int, note: str = "") -> None:
    """Keep a restore point until it is unpinned, against all rules; ``GapError`` when it cannot be
    restored exactly."""
    with open_archive(address) as (store, prefix):
        keys, point = Keys(prefix), PinnedPoint(txid, note)
        index = take_index(store, keys)
        plan = settle(store, index, [point], Retention(), clock.now_ms(), grace_ms=0)
        if plan.decision.lost_pins:
            raise GapError(
                f"transaction {txid} cannot be restored, so it cannot be kept",
                first_missing=txid,
                last_missing=txid,
                hint="replicator history lists the restorable transactions",
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
