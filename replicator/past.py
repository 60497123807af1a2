"""The past of one database: what a running replicator does for it, and what anybody can do from
the bucket alone.

Owns the wiring of merges and pruning to the cache and to a store; the rules are those of
:mod:`.keep.policy`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from .config import SqliteReplicatorConfig
from .edge.store import open_store
from .edge.store.base import Store, StoreTarget
from .edge.store.retry import RetryingStore, RetryPolicy
from .format.keys import Keys
from .keep import listing
from .keep.build import Source
from .keep.inventory import SEGMENTS, LogItem, PinnedPoint
from .keep.keeper import Keeper, Keeping
from .keep.policy import KeptPoint, Verdict
from .keep.prune import Plan, Pruned, Pruner, plan_prune
from .metrics import Metrics
from .model import Retention
from .ship.cache import Cache, SegmentRecord

__all__ = ["KeptPoint", "Plan", "PrunePlan", "Pruned", "Verdict", "keeper_for", "pin", "pins",
           "prune", "unpin"]

PATIENCE = RetryPolicy(deadline=30.0, first_contact=10.0)  # seconds
PrunePlan = Plan


def now_ms() -> int:
    return time.time_ns() // 1_000_000


# -------------------------------------------------------------------- beside a replicator


def keeper_for(config: SqliteReplicatorConfig, store: Store, cache: Cache, metrics: Metrics, *,
               created_by: str, durable_txid: Callable[[], int], pause: Callable[[float], None],
               on_trouble: Callable[[str], object]) -> Keeper:
    """The thread that merges and prunes while ``config`` is replicated; not started yet."""
    keeping = Keeping(
        store=store, keys=Keys(config.target.prefix), rules=config.retention,
        appended=partial(_appended, cache, durable_txid), cached=partial(_cached, cache),
        metrics=metrics, created_by=created_by, level=config.compression_level,
        on_merged=cache.merged, on_trouble=on_trouble, pause=partial(pause, 0.0))
    return Keeper(keeping, now_ms)


def _appended(cache: Cache, durable_txid: Callable[[], int], since: int) -> Sequence[LogItem]:
    if durable_txid() <= since:
        return []
    found = []
    for record in cache.records(since + 1):
        if not record.acknowledged:
            break
        found.append(_item(record))
    return found


def _item(record: SegmentRecord) -> LogItem:
    return LogItem(record.key, SEGMENTS, record.first_txid, record.last_txid, record.size,
                   record.uploaded_ms or record.created_ms, record.commit_ms, record.kind,
                   record.generation)


def _cached(cache: Cache, first: int, last: int) -> Sequence[Source]:
    return [Source(record.key, record.first_txid, record.last_txid, partial(cache.read, record))
            for record in cache.records(first, last) if record.acknowledged and record.stored]


# -------------------------------------------------------------------- from the bucket alone


def prune(target: StoreTarget, rules: Retention, *, delete: bool = False,
          store: Store | None = None, at_ms: int | None = None) -> tuple[Plan, Pruned | None]:
    """What the rules keep and delete of the database at ``target``; with ``delete`` it is done.

    Safe while a replicator runs, and while somebody restores. Raises what the store raises;
    a bucket that forbids deletions is said so in :attr:`Pruned.refused`.
    """
    with _opened(target, store) as opened:
        plan = plan_prune(opened, Keys(target.prefix), rules, at_ms or now_ms())
        if not delete:
            return plan, None
        return plan, Pruner(opened, Keys(target.prefix)).apply(plan, plan.decision.deletions)


def pin(target: StoreTarget, txid: int, note: str = "", *, store: Store | None = None) -> None:
    """Keep a restore point until it is unpinned, whatever the rules say."""
    with _opened(target, store) as opened:
        listing.pin(opened, Keys(target.prefix), txid, note)


def unpin(target: StoreTarget, txid: int, *, store: Store | None = None) -> None:
    """Leave a restore point to the rules again; ``ReplicatorError`` when it is not pinned."""
    with _opened(target, store) as opened:
        listing.unpin(opened, Keys(target.prefix), txid)


def pins(target: StoreTarget, *, store: Store | None = None) -> tuple[PinnedPoint, ...]:
    """Every pinned restore point."""
    with _opened(target, store) as opened:
        return listing.list_pins(opened, Keys(target.prefix))


@contextlib.contextmanager
def _opened(target: StoreTarget, store: Store | None) -> Iterator[Store]:
    """A store that retries, closed only if it was opened here."""
    if store is not None:
        yield RetryingStore(store, PATIENCE)
        return
    with contextlib.closing(open_store(target)) as opened:
        yield RetryingStore(opened, PATIENCE)
