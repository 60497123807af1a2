"""The retention worker of a running replicator: merges segments, prunes old objects.

Owns the index in memory, to which the replicator's own segments are added, and the order of steps:
a merge is stored, then proved, and its sources are deleted some minutes later. Refuses to hurry: it
rests four times as long as it worked, and sends no request while nothing new was appended.
"""

from __future__ import annotations

import logging
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from replicator.archive.facts import FactsReader, fits
from replicator.archive.index import EVERY_TRANSACTION, Index, PinnedPoint, WalObject
from replicator.archive.keys import Keys
from replicator.archive.listing import list_snapshots
from replicator.archive.pins import list_pins
from replicator.errors import (
    AccessDenied,
    DamageError,
    NewerFormat,
    ObjectExists,
    ObjectMissing,
    ReplicatorError,
)
from replicator.format.integrity import place_of
from replicator.format.object_header import ObjectFacts
from replicator.metrics import Metrics
from replicator.model import Cause, Health, Incident, Retention
from replicator.retention.limits import RetentionLimits
from replicator.retention.merge import (
    Merge,
    MergeContent,
    MergeSource,
    Unmergeable,
    merge_all,
    merge_newest,
)
from replicator.retention.prune import PrunePlan, Pruner, judged, settle, take_index
from replicator.retention.schedule import Run, due_runs, next_due_ms
from replicator.retention.segments import Segments
from replicator.store.base import Store
from replicator.store.retry import Pauses
from replicator.system.mailbox import Mailbox
from replicator.system.scheduler import Scheduler, Task

WORKING = "working"

log = logging.getLogger(__name__)


@dataclass(slots=True)
class RetentionSteps:
    """Merges and prunes one archive step by step. :class:`RetentionWorker` runs the steps."""

    store: Store
    keys: Keys
    rules: Retention
    segments: Segments
    metrics: Metrics
    mailbox: Mailbox
    limits: RetentionLimits
    created_by: str
    level: int  # of compression
    pause: Callable[[], None] = lambda: None
    refused: str = ""  # why the bucket deletes nothing, "" while it does
    _index: Index | None = None
    _pins: tuple[PinnedPoint, ...] = ()
    _newest_ms: int = 0  # the store's clock showed at least this
    _fed: int | None = None  # the newest txid that was looked at
    _due_ms: int | None = None  # when there is something to do; None: when something is appended
    _prune_ms: int = 0
    _looked_ms: int = 0  # when snapshots and pins were listed
    listings: int = 0  # of pins, each counted before it began
    _active: bool = False  # something was appended since they were
    _refused_until_ms: int = 0
    _warned_versions: bool = False
    _skipped: set[str] = field(default_factory=set)
    _pruner: Pruner = field(init=False)

    def __post_init__(self) -> None:
        self._pruner = Pruner(self.store, self.keys)

    def step(self, now_ms: int) -> bool:
        """Does one piece of work. True if there may be more at once. Sends no request while nothing
        was appended and nothing is due. After an error the next call tries again."""
        if self._feed() and self._due_ms is None:
            self._due_ms = now_ms + self.limits.begin_ms
        if self._due_ms is None or now_ms < self._due_ms:
            return False
        if self._index is None:
            self._load(now_ms)
        assert self._index is not None
        run = self._next_run(self._index, now_ms)
        if run is not None:
            self._merge(run)
            return True
        self._prune(now_ms)
        self._due_ms = self._next_due(now_ms)
        return False

    def begin(self, now_ms: int) -> None:
        """Let the next step do all due work, although nothing was appended since the start."""
        self._feed()
        self._due_ms = now_ms

    # ---------------------------------------------------------------- the index

    def _feed(self) -> bool:
        """Add the appended segments to the index. True if there were any."""
        if self._fed is None:
            newest = self.segments.appended(0)[-1:]
            self._fed = newest[0].last if newest else 0
            return False  # segments from before the start are no reason to begin
        new = self.segments.appended(self._fed)
        if not new:
            return False
        follows = new[0].first == self._fed + 1
        self._fed, self._active = new[-1].last, True
        if self._index is not None:
            self._index = self._index.with_objects(new) if follows else None
        return True

    def _load(self, now_ms: int) -> None:
        """List the archive, and add the facts that the cache knows of its segments."""
        index = take_index(self.store, self.keys)
        known = [
            replace(item, size=listed.size, stored_ms=listed.stored_ms)
            for item in self.segments.appended(0)
            if (listed := index.by_key.get(item.key)) is not None
        ]
        self._list_pins()
        self._newest_ms = index.newest_ms
        self._index, self._looked_ms = index.with_objects(known), now_ms

    def _next_due(self, now_ms: int) -> int:
        """The time at which something is due without a new segment."""
        if self._index is None:
            return now_ms
        at, grace_ms = [self._prune_ms], self.limits.merge_grace_ms
        run = next_due_ms(self._index, now_ms)
        at += [run] if run is not None else []
        at += [
            item.stored_ms + grace_ms
            for item in self._index.wal
            if item.level == EVERY_TRANSACTION and item.stored_ms + grace_ms > now_ms
        ]
        return min(at)

    # ---------------------------------------------------------------- merging

    def _next_run(self, index: Index, now_ms: int) -> Run | None:
        since_ms = now_ms - 1000 * self.rules.every_transaction
        return next(
            (
                run
                for run in due_runs(index, now_ms, since_ms=since_ms)
                if self._key(run) not in self._skipped
            ),
            None,
        )

    def _key(self, run: Run) -> str:
        return self.keys.merged(run.level, run.first, run.last)

    def _merge(self, run: Run) -> None:
        """Store one merge. If it cannot be made it is not tried again."""
        key, sources = self._key(run), self._sources(run)
        make = merge_all if run.level == EVERY_TRANSACTION else merge_newest
        self._skipped.add(key)
        if sources is None:
            return
        try:
            place = place_of(self.store.integrity, key)
            merge = make(sources, created_by=self.created_by, level=self.level, place=place)
        except Unmergeable as error:
            self._learn(error.contents)
        except NewerFormat as error:
            log.warning("%s was not made: %s", key, error)
        except DamageError as error:
            log.warning("%s was not made: %s", key, error)
            self.mailbox.report(Incident(Cause.SOURCE_DAMAGED, f"{key} was not made: {error}"))
        except ObjectMissing as error:
            log.info("%s was not made: %s", key, error)
            self._index = None  # perhaps another program prunes
            self.mailbox.report(Incident(Cause.SOURCE_DAMAGED, f"{key} was not made: {error}"))
        else:
            self._skipped.discard(key)
            self._store_merge(run, key, merge)

    def _sources(self, run: Run) -> list[MergeSource] | None:
        """From the cache where it has them, else from the store; None: too much to fetch."""
        cached = self.segments.cached(run.first, run.last)
        found: list[MergeSource] = []
        fetched = 0
        for item in run.items:
            own = cached[
                bisect_left(cached, item.first, key=_first) : bisect_right(
                    cached, item.last, key=_first
                )
            ]
            if not _covers(own, item):
                fetched += item.size
                own = [MergeSource(item.key, item.first, item.last, _once(self.store, item))]
            found += own
        return found if fetched <= self.limits.fetch_bytes else None

    def _learn(self, contents: Sequence[MergeContent]) -> None:
        """Add the facts of sources that were read: their own bytes hold them."""
        assert self._index is not None
        found = ((self._index.by_key.get(content.key), content.facts) for content in contents)
        self._index = self._index.with_objects(
            item.with_facts(facts, proved=True)
            for item, facts in found
            if item is not None and fits(item, facts)
        )

    def _store_merge(self, run: Run, key: str, merge: Merge) -> None:
        assert self._index is not None
        self.pause()
        try:
            self.store.put(key, merge.body, metadata=merge.summary.metadata())
        except ObjectExists:
            log.info("%s exists already", key)
        item = WalObject(key, run.level, run.first, run.last, len(merge.body))
        info, facts = FactsReader(self.store).current(item)
        if not _same(facts, merge):
            self._skipped.add(key)
            log.warning("%s: the merge in the store does not match its sources", key)
            return
        self._learn(merge.contents)
        item = replace(item, size=info.size, stored_ms=info.modified_ms).with_facts(facts)
        self._index = self._index.with_objects([item])
        self._newest_ms = max(self._newest_ms, info.modified_ms)
        self.metrics.add("merges")
        self.metrics.add("merged_bytes", info.size)
        if run.level == EVERY_TRANSACTION:
            self.segments.merged(run.first, run.last)
        log.info(
            "merged transactions %d to %d: %d objects, %d bytes",
            run.first,
            run.last,
            len(run.items),
            info.size,
        )

    # ---------------------------------------------------------------- pruning

    def _prune(self, now_ms: int) -> None:
        """Sources of a merge are deleted soon after it; the other objects are judged once an hour,
        after a new listing, and by a clock that is never ahead of the store's times."""
        if now_ms < self._refused_until_ms:
            return
        assert self._index is not None
        everything = now_ms >= self._prune_ms
        if everything and self._active:
            self._look(now_ms)
        plan = self._decided(now_ms)
        if everything and any(v.covered_by is None for v in plan.decision.deletions):
            self._look(now_ms)
            plan = self._decided(now_ms)
        self._apply(plan, now_ms, everything=everything)
        if everything:
            self._prune_ms, self._active = now_ms + self.limits.prune_ms, False

    def _look(self, now_ms: int) -> None:
        """List snapshots and pins, which other threads and programs add. Two listings, and one GET
        for each pin."""
        assert self._index is not None
        if self._looked_ms == now_ms:
            return
        snapshots = list_snapshots(self.store, self.keys)
        self._newest_ms = max([self._newest_ms, *(s.stored_ms for s in snapshots)])
        self._index = judged(self.store, replace(self._index, snapshots=snapshots))
        self._list_pins()
        self._looked_ms = now_ms

    def _list_pins(self) -> None:
        self.listings += 1
        self._pins = list_pins(self.store, self.keys)

    def _decided(self, now_ms: int) -> PrunePlan:
        assert self._index is not None
        trusted_ms = min(now_ms, self._newest_ms + self.limits.skew_ms)
        grace_ms = self.limits.merge_grace_ms
        plan = settle(
            self.store, self._index, self._pins, self.rules, trusted_ms, grace_ms=grace_ms
        )
        self._index = plan.index
        return plan

    def _apply(self, plan: PrunePlan, now_ms: int, *, everything: bool) -> None:
        """Between two listings of the snapshots only sources of merges are deleted."""
        wanted = [
            verdict
            for verdict in plan.decision.deletions
            if everything or verdict.covered_by is not None
        ]
        done = self._pruner.apply(plan, wanted, self.pause)
        self._index = plan.index.without(verdict.key for verdict in done.deleted)
        if any(verdict.covered_by for verdict in done.unproved):
            self._index = None  # a merge vanished: look again
        self.metrics.add("pruned_objects", len(done.deleted))
        self.metrics.add("pruned_bytes", done.size)
        if done.refused and not self.refused:
            log.warning("%s; relying on the lifecycle rules of the bucket", done.refused)
        self.refused = done.refused
        if done.versioned and not self._warned_versions:
            self._warned_versions = True
            log.warning(
                "%s keeps old versions of deleted objects; a lifecycle rule for "
                "noncurrent versions limits them",
                self.store.url,
            )
        if done.refused:
            self._refused_until_ms = now_ms + self.limits.refused_ms


def _first(source: MergeSource) -> int:
    return source.first


def _covers(sources: Sequence[MergeSource], item: WalObject) -> bool:
    """True if they are, end to end, the transactions of the item."""
    here = item.first
    for source in sources:
        if source.first != here:
            return False
        here = source.last + 1
    return here == item.last + 1


def _once(store: Store, item: WalObject) -> Callable[[], bytes]:
    """A reader that fetches one time only, and no more than the listing showed. The size of an
    object that the cache adopted is not known."""
    kept: list[bytes] = []

    def read() -> bytes:
        if not kept:
            kept.append(store.get(item.key, 0, item.size or None))
        return kept[0]

    return read


def _same(facts: ObjectFacts, merge: Merge) -> bool:
    """True if a stored merge states the facts of the one at hand; its bytes may come from another
    version of this program."""
    own = ObjectFacts.of(merge.summary.header, merge.summary.trailer)
    return all(
        getattr(facts, name) == getattr(own, name)
        for name in (
            "kind",
            "generation",
            "first_txid",
            "last_txid",
            "checksum_before",
            "checksum_after",
        )
    )


class RetentionWorker:
    """The task that runs the steps. ``clock_ms`` gives the time, ``scheduler`` the thread."""

    def __init__(
        self, steps: RetentionSteps, clock_ms: Callable[[], int], scheduler: Scheduler
    ) -> None:
        self._steps = steps
        self._clock_ms = clock_ms
        self._scheduler = scheduler
        self._task: Task | None = None
        self._pauses = Pauses(steps.limits.retries)
        self._health = Health(WORKING)

    def start(self) -> None:
        self._task = self._scheduler.add(self._turn)

    def stop(self) -> None:
        if self._task is not None:
            self._task.stop()

    @property
    def listings(self) -> int:
        """Grows before the pins are listed: a pin from later counts from the next listing on."""
        return self._steps.listings

    @property
    def health(self) -> Health:
        """Its error is why merges or deletions wait."""
        refused = self._steps.refused
        if self._health.error is None and refused:
            return Health("refused", AccessDenied(refused), self._health.since_ms)
        return self._health

    def _turn(self) -> float:
        """One piece of work; seconds until the next."""
        began, limits = time.monotonic(), self._steps.limits
        try:
            more = self._steps.step(self._clock_ms())
        except Exception as error:  # noqa: BLE001 - retention must never harm replication
            wait = self._pauses.next()
            self._note(error, wait)
            return wait
        self._set(None)
        self._pauses.reset()
        return limits.rest * (time.monotonic() - began) if more else limits.tick

    def _note(self, error: Exception, wait: float) -> None:
        if isinstance(error, ReplicatorError):
            level = logging.INFO if self._health.error is not None else logging.WARNING
            log.log(level, "merging and pruning wait %.0f s: %s", wait, error)
            self._set(error)
        else:
            log.error("unexpected error while merging or pruning (bug)", exc_info=error)
            text = f"unexpected error while merging or pruning (bug): {error!r}"
            self._set(ReplicatorError(text, code="defect"))

    def _set(self, error: ReplicatorError | None) -> None:
        state = WORKING if error is None else "waiting"
        self._health = self._health.after(state, error, at_ms=self._clock_ms())
