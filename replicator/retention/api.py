"""Retention of one database: the worker of a running replicator, and commands on the bucket alone.

Owns the wiring of merges and pruning to the cache and to a store; :mod:`.policy` owns the rules.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from replicator.archive import pins
from replicator.archive.index import PinnedPoint
from replicator.archive.keys import Keys
from replicator.archive.locate import open_archive, url_of
from replicator.archive.point import RestorePoint, require_name
from replicator.archive.seals import is_sealed, warn_unauthenticated
from replicator.config.settings import SqliteReplicatorConfig
from replicator.errors import GapError
from replicator.metrics import Metrics
from replicator.model import Retention
from replicator.recovery.known_archive import KnownArchive
from replicator.recovery.point_in_time import load_for
from replicator.retention.limits import RetentionLimits
from replicator.retention.policy import KeptPoint, Verdict
from replicator.retention.prune import (
    Pruned,
    PrunePlan,
    Pruner,
    asked,
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
    "pinned",
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
    forbids deletions, :attr:`Pruned.refused` holds the reason. Logs a warning for a sealed archive
    without its key.
    """
    with open_archive(address) as (store, prefix):
        if store.integrity is None and is_sealed(store, Keys(prefix)):
            warn_unauthenticated(url_of(store, prefix))
        plan = plan_prune(store, Keys(prefix), rules, clock.now_ms())
        if not delete:
            return plan, None
        return plan, Pruner(store, Keys(prefix)).apply(plan, plan.decision.deletions)


def pin(
    address: StoreAddress,
    point: RestorePoint,
    *,
    note: str = "",
    name: str = "",
    move: bool = False,
) -> None:
    """Keep a restore point until it is unpinned, against all rules, and give it a name if there is
    one. ``GapError`` when it cannot be restored exactly, ``ConfigError`` for a name that another
    transaction has, unless ``move``, or that no pin can have."""
    if name:
        require_name(name)
    with open_archive(address) as (store, prefix):
        keys = Keys(prefix)
        view = KnownArchive(store, keys)
        txid = load_for(view, pins.found(store, keys, point)) or take_index(store, keys).head
        if not is_restorable(store, keys, txid):
            raise GapError(
                f"transaction {txid} cannot be restored, so it cannot be kept",
                first_missing=txid,
                last_missing=txid,
                hint="replicator history lists the restorable transactions",
            )
        kept = PinnedPoint(txid, note, name)
        pins.pin(store, keys, kept, at_ms=clock.now_ms(), move=move)


def is_restorable(store: Store, keys: Keys, txid: int) -> bool:
    """True if the transaction can be restored exactly, by the names of the objects. Asks those
    that hold it for their ends, which the names of segments leave open."""
    index, point = take_index(store, keys), PinnedPoint(txid)
    index = asked(store, index, (item for item in index.covering(txid) if item.guessed))
    plan = settle(store, index, [point], Retention(), clock.now_ms(), grace_ms=0)
    return not plan.decision.lost_pins


def unpin(address: StoreAddress, which: int | str) -> tuple[PinnedPoint, ...]:
    """Leave a transaction, or the one with a name, to the rules again; see
    :func:`replicator.archive.pins.unpin`."""
    with open_archive(address) as (store, prefix):
        return pins.unpin(store, Keys(prefix), which)


def pinned(address: StoreAddress) -> tuple[PinnedPoint, ...]:
    """Every pinned restore point, with each of its names."""
    with open_archive(address) as (store, prefix):
        return pins.list_pins(store, Keys(prefix))
