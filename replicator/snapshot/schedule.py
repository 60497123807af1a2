"""When a snapshot is due, and the thread that takes it beside the capture."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace

from replicator.archive.keys import Keys
from replicator.archive.listing import list_snapshots
from replicator.cache.cache import Cache
from replicator.cache.records import Fact
from replicator.capture.image import Image
from replicator.capture.limits import CaptureLimits
from replicator.errors import Cancelled, ChangedOutside, CopyRefused, NotDurable, ReplicatorError
from replicator.format.object_header import ObjectHeader
from replicator.format.page_hashes import PageHashes
from replicator.metrics import Metrics
from replicator.model import DatabaseState, WalPosition
from replicator.snapshot.base import Source, Sources, SourceUnusable
from replicator.snapshot.limits import SnapshotLimits, SnapshotRule
from replicator.snapshot.multipart import Differs
from replicator.snapshot.resume import Unfinished
from replicator.snapshot.stream import Shipped, ship_snapshot
from replicator.sqlite.live import Hold, LiveDatabase
from replicator.store.base import Store
from replicator.system import clock
from replicator.system.limiter import CapacityLimiter
from replicator.upload.uploader import Uploader

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SnapshotFacts:
    """The newest snapshot in the store: its txid, when it got there (ms), its bytes."""

    txid: int
    at_ms: int
    size: int


def snapshot_due(
    facts: SnapshotFacts,
    *,
    at_ms: int,
    log_bytes: int,
    rule: SnapshotRule,
) -> bool:
    """True if the ``log_bytes`` of segments since the last snapshot are worth another one."""
    age = (at_ms - facts.at_ms) / 1000
    if log_bytes <= 0 or age < rule.interval:
        return False
    return log_bytes > rule.log_ratio * facts.size or age >= rule.max_age


def newest_stored(store: Store, keys: Keys, generation: str) -> SnapshotFacts | None:
    """The newest snapshot of a generation that the store has; one listing."""
    found = [
        SnapshotFacts(item.txid, item.stored_ms, item.size)
        for item in list_snapshots(store, keys)
        if item.generation == generation
    ]
    return max(found, key=lambda facts: facts.txid, default=None)


def describe(store: Store, keys: Keys, database: str, facts: SnapshotFacts) -> None:
    """Leave a note for people who look into the bucket. Nothing depends on it."""
    note = {
        "database": database,
        "newest_snapshot_txid": facts.txid,
        "newest_snapshot_ms": facts.at_ms,
        "written_by": "replicator",
        "format": 1,
    }
    try:
        store.put(keys.metadata, json.dumps(note, indent=1).encode(), if_absent=False)
    except ReplicatorError as error:
        log.info("%s was not written: %s", keys.metadata, error)


class Request(Future[int]):
    """Somebody waits for a snapshot, and learns its txid. ``whole``: because the bytes in the
    store are not to be trusted, so none of them may be copied into it."""

    def __init__(self, *, whole: bool = False) -> None:
        super().__init__()
        self.whole = whole


@dataclass(slots=True)
class _Job:
    txid: int
    hold: Hold | None  # None once the image was read
    image: Image
    thread: threading.Thread
    read: threading.Event  # every page of the image is with the store
    result: Future[tuple[SnapshotFacts, Shipped]]


class Snapshots:
    """Driven by the capture thread; one snapshot at a time."""

    def __init__(
        self,
        name: str,
        rule: SnapshotRule,
        limits: SnapshotLimits,
        capture: CaptureLimits,
        store: Store,
        keys: Keys,
        cache: Cache,
        unfinished: Unfinished,
        sources: Sources,
        uploader: Uploader,
        metrics: Metrics,
        limiter: CapacityLimiter,
    ) -> None:
        """A snapshot of the database called ``name`` begins only when ``limiter`` has a free
        slot."""
        self._limiter = limiter
        self.waits = False  # for its turn
        self._name = name
        self._rule = rule
        self._limits = limits
        self._capture_limits = capture
        self._store = store
        self._keys = keys
        self._cache = cache
        self._unfinished = unfinished
        self._sources = sources
        self._uploader = uploader
        self._metrics = metrics
        self._closing = False
        self._job: _Job | None = None
        self._waiting: list[Request] = []  # the next snapshot answers them
        self._serving: list[Request] = []  # answered by the snapshot under way
        self._not_before = 0.0
        self.last = self._remembered()
        since = self.last.txid + 1 if self.last else 0
        self._log_bytes = sum(record.size for record in cache.records(since))

    def _remembered(self) -> SnapshotFacts | None:
        try:
            return SnapshotFacts(**json.loads(self._cache.get(Fact.SNAPSHOT) or "null"))
        except (TypeError, ValueError):
            return None

    @property
    def running(self) -> bool:
        return self._job is not None

    def logged(self, size: int) -> None:
        """A segment of ``size`` bytes was cut."""
        self._log_bytes += size

    def know(self, facts: SnapshotFacts) -> None:
        """The newest snapshot is this one, whoever took it."""
        self.last = facts
        self._log_bytes = sum(r.size for r in self._cache.records(facts.txid + 1))
        self._cache.put(Fact.SNAPSHOT, json.dumps(asdict(facts)))

    def took(self, facts: SnapshotFacts, shipped: Shipped) -> None:
        """A snapshot is in the store."""
        self.know(facts)
        self._metrics.add("snapshot_bytes", shipped.sent_bytes)
        self._metrics.add("copied_bytes", shipped.copied_bytes)
        self._metrics.add("snapshots")
        self._metrics.set("last_snapshot_ms", facts.at_ms)

    def wanted(self, requests: list[Request]) -> bool:
        """Whether to begin one now. ``requests`` are all that have no answer yet."""
        self._waiting = [r for r in requests if not r.done() and r not in self._serving]
        if self._job is not None:
            return False
        return bool(self._waiting) or (time.monotonic() >= self._not_before and self._due())

    def _due(self) -> bool:
        if self.last is None:
            return self._log_bytes > 0
        return snapshot_due(
            self.last,
            at_ms=clock.now_ms(),
            log_bytes=self._log_bytes,
            rule=self._rule,
        )

    def begin(
        self,
        database: LiveDatabase,
        hold: Hold,
        position: WalPosition,
        header: ObjectHeader,
        state: DatabaseState,
    ) -> None:
        """Start the thread for a snapshot of ``state`` at ``position``; ``hold`` is ours from here
        on."""
        txid = header.first_txid
        self._serving, self._waiting = self._waiting, []
        if self.last is not None and self.last.txid == txid:
            database.release(hold)
            self._answer(txid)
            return
        image = Image(database, self._capture_limits, position)
        self.waits = not self._limiter.try_acquire()
        if self.waits:
            image.close()
            database.release(hold)
            self._waiting, self._serving = self._serving, []
            return
        before = None if any(request.whole for request in self._serving) else self.last
        result: Future[tuple[SnapshotFacts, Shipped]] = Future()
        read = threading.Event()
        thread = threading.Thread(
            target=self._take,
            name="replicator-snapshot",
            daemon=True,
            args=(image, header, state, before, read, result),
        )
        self._job = _Job(txid, hold, image, thread, read, result)
        thread.start()

    def _answer(self, txid: int) -> None:
        for request in self._serving:
            request.set_result(txid)
        self._serving = []

    def _refuse(self, error: BaseException) -> None:
        for request in self._serving:
            request.set_exception(error)
        self._serving = []

    def _take(
        self,
        image: Image,
        header: ObjectHeader,
        state: DatabaseState,
        before: SnapshotFacts | None,
        read: threading.Event,
        result: Future[tuple[SnapshotFacts, Shipped]],
    ) -> None:
        def gate(hashes: PageHashes) -> None:
            read.set()
            if hashes.state != state:
                raise ChangedOutside(
                    "the database file changed outside its log; the snapshot "
                    f"of txid {header.first_txid} was not published"
                )
            self._wait_durable(header.first_txid)

        key = self._keys.snapshot(header.first_txid, header.generation)
        try:
            source = self._source(before, header)
            shipped = self._ship(image, header, key, gate, source)
            facts = SnapshotFacts(header.first_txid, clock.now_ms(), shipped.summary.size)
            describe(self._store, self._keys, self._name, facts)
            result.set_result((facts, shipped))
        except BaseException as error:  # noqa: BLE001 - the capture thread raises it
            result.set_exception(error)

    def _source(self, before: SnapshotFacts | None, header: ObjectHeader) -> Source | None:
        if before is None:
            return None
        return self._sources.find(
            self._keys.snapshot(before.txid, header.generation), header.created_ms
        )

    def _ship(
        self,
        image: Image,
        header: ObjectHeader,
        key: str,
        gate: Callable[[PageHashes], None],
        source: Source | None,
    ) -> Shipped:
        begun = self._unfinished.find(header.first_txid, header.generation)
        try:
            return ship_snapshot(
                image,
                self._store,
                replace(header, created_ms=begun.created_ms) if begun else header,
                key,
                self._unfinished,
                limits=self._limits,
                gate=gate,
                cancelled=lambda: self._closing,
                source=source,
            )
        except (CopyRefused, Differs, SourceUnusable) as reason:
            log.info("the snapshot of txid %d starts over: %s", header.first_txid, reason)
            if isinstance(reason, CopyRefused):
                self._sources.refused(reason)
            again = source if isinstance(reason, Differs) else None
            return self._ship(image, header, key, gate, again)

    def _wait_durable(self, txid: int) -> None:
        until = time.monotonic() + self._limits.gate_timeout
        while not self._closing:
            try:
                self._uploader.wait_durable(txid, self._limits.gate_poll)
                return
            except NotDurable:
                if time.monotonic() >= until:
                    raise
        raise Cancelled("the snapshot was given up before its transaction was durable")

    def reap(self, database: LiveDatabase) -> None:
        """Take note of a snapshot that ended. ``ChangedOutside`` when the file was changed."""
        job = self._job
        if job is not None and job.read.is_set():
            self._unpin(database, job)  # the log need not wait for the snapshot's publication
        if job is None or not job.result.done():
            return
        self._end(database, job)
        error = job.result.exception()
        if error is None:
            facts, shipped = job.result.result()
            self.took(facts, shipped)
            log.info(
                "snapshot of txid %d is in the store, %d bytes, %d of them copied there",
                job.txid,
                facts.size,
                shipped.copied_bytes,
            )
            self._answer(job.txid)
        else:
            self._failed(job, error)

    def _failed(self, job: _Job, error: BaseException) -> None:
        self._not_before = time.monotonic() + self._rule.retry
        self._refuse(error)
        if isinstance(error, ChangedOutside) or not isinstance(error, ReplicatorError):
            raise error
        log.warning("the snapshot of txid %d failed: %s", job.txid, error)

    def _end(self, database: LiveDatabase, job: _Job) -> None:
        job.thread.join()
        job.image.close()
        self._unpin(database, job)
        self._job = None
        self._limiter.release()

    def _unpin(self, database: LiveDatabase, job: _Job) -> None:
        if job.hold is not None:
            database.release(job.hold)
            job.hold = None

    def close(self, database: LiveDatabase) -> None:
        """Give up what is under way. Whoever asked for it has no answer yet."""
        self._closing = True
        if self._job is not None:
            self._end(database, self._job)
