"""Takes snapshots while the capture continues, in a thread, one at a time.

Owns: which requests a snapshot answers, the hold on the WAL until the image was read, and the
facts about the newest snapshot. Refuses: to capture; the capture thread drives it.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field

from replicator.cache.cache import Cache
from replicator.cache.records import Fact
from replicator.capture.image import Image
from replicator.capture.limits import CaptureLimits
from replicator.errors import ChangedOutside, ReplicatorError
from replicator.format.object_header import ObjectHeader
from replicator.format.wal_index import WalIndexState
from replicator.metrics import Metrics
from replicator.model import Cause, DatabaseState, Incident, WalPosition
from replicator.snapshot.limits import SnapshotRule
from replicator.snapshot.schedule import SnapshotFacts, snapshot_due
from replicator.snapshot.stream import SentSnapshot
from replicator.snapshot.take import SnapshotTaker
from replicator.sqlite.live import Hold, LiveDatabase
from replicator.system import clock
from replicator.system.limiter import CapacityLimiter
from replicator.system.mailbox import Mailbox, Request, Wanted

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Job:
    txid: int
    hold: Hold | None  # None once the image was read
    image: Image
    gives_way: bool = True  # the image can outlive its hold
    state: WalIndexState | None = None  # of the WAL when it did
    read: threading.Event = field(default_factory=threading.Event)  # the image, to its end
    result: Future[tuple[SnapshotFacts, SentSnapshot]] = field(default_factory=Future)
    thread: threading.Thread = field(init=False)


class Snapshots:
    """Of one session. Used by the capture thread alone."""

    def __init__(
        self,
        taker: SnapshotTaker,
        rule: SnapshotRule,
        capture_limits: CaptureLimits,
        cache: Cache,
        mailbox: Mailbox,
        metrics: Metrics,
        limiter: CapacityLimiter,
    ) -> None:
        """A snapshot begins only when ``limiter`` has a free slot."""
        self._taker = taker
        self._rule = rule
        self._capture_limits = capture_limits
        self._cache = cache
        self._mailbox = mailbox
        self._metrics = metrics
        self._limiter = limiter
        self._closing = False
        self._job: _Job | None = None
        self._waiting: list[Request] = []  # the next snapshot answers them
        self._serving: list[Request] = []  # the running snapshot answers them
        self._not_before = 0.0  # monotonic
        self.waits = False  # for a slot of the limiter
        self.last = self._remembered()
        since = self.last.txid + 1 if self.last else 0
        self._segment_bytes = sum(record.size for record in cache.records(since))

    def _remembered(self) -> SnapshotFacts | None:
        try:
            return SnapshotFacts(**json.loads(self._cache.get(Fact.SNAPSHOT) or "null"))
        except (TypeError, ValueError):
            return None

    @property
    def running(self) -> bool:
        return self._job is not None

    def logged(self, size: int) -> None:
        """A segment of ``size`` bytes is in the cache."""
        self._segment_bytes += size

    def know(self, facts: SnapshotFacts) -> None:
        """The newest snapshot is this one, whichever writer took it."""
        self.last = facts
        self._segment_bytes = sum(r.size for r in self._cache.records(facts.txid + 1))
        self._cache.put(Fact.SNAPSHOT, json.dumps(asdict(facts)))

    def took(self, facts: SnapshotFacts, sent: SentSnapshot) -> None:
        """A snapshot of this writer is in the store."""
        self.know(facts)
        self._metrics.add("snapshot_bytes", sent.sent_bytes)
        self._metrics.add("copied_bytes", sent.copied_bytes)
        self._metrics.add("snapshots")
        self._metrics.set("last_snapshot_ms", facts.at_ms)

    def wanted(self, requests: list[Request]) -> bool:
        """True if one is to begin now. ``requests`` are all that have no answer yet."""
        self._waiting = [r for r in requests if not r.done() and r not in self._serving]
        if self._job is not None:
            return False
        return bool(self._waiting) or (time.monotonic() >= self._not_before and self._due())

    def _due(self) -> bool:
        now_ms = clock.now_ms()
        return snapshot_due(
            self.last, at_ms=now_ms, segment_bytes=self._segment_bytes, rule=self._rule
        )

    def begin(
        self,
        database: LiveDatabase,
        hold: Hold,
        position: WalPosition,
        header: ObjectHeader,
        state: DatabaseState,
    ) -> None:
        """Starts the thread for a snapshot of ``state`` at ``position``, and releases ``hold``
        once it is not needed."""
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
        self._job = _Job(txid, hold, image)
        whole = any(request.wanted is Wanted.WHOLE_SNAPSHOT for request in self._serving)
        last = None if whole else self.last
        self._job.thread = threading.Thread(
            target=self._run,
            name="replicator-snapshot",
            daemon=True,
            args=(self._job, header, state, last),
        )
        self._job.thread.start()

    def _run(
        self, job: _Job, header: ObjectHeader, state: DatabaseState, last: SnapshotFacts | None
    ) -> None:
        try:
            taken = self._taker.take(
                job.image, header, state, last, read=job.read, cancelled=lambda: self._closing
            )
            job.result.set_result(taken)
        except BaseException as error:  # noqa: BLE001 - reap() hands it over
            job.result.set_exception(error)

    def _answer(self, txid: int) -> None:
        for request in self._serving:
            request.set_result(txid)
        self._serving = []

    def reap(self, database: LiveDatabase) -> None:
        """Takes note of a snapshot that ended. An image that differs from the captured state is
        reported; an unexpected error is raised."""
        job = self._job
        if job is not None and job.read.is_set():
            self._release(database, job)  # publication does not need the WAL
        if job is None or not job.result.done():
            return
        self._end(database, job)
        error = job.result.exception()
        if error is not None:
            self._failed(job, error)
            return
        facts, sent = job.result.result()
        self.took(facts, sent)
        log.info(
            "snapshot of txid %d is in the store, %d bytes, %d of them copied there",
            job.txid,
            facts.size,
            sent.copied_bytes,
        )
        self._answer(job.txid)

    def make_way(self, database: LiveDatabase) -> None:
        """Moves the hold of a snapshot that is being read out of the way of a checkpoint. If the
        database contains the whole WAL, the new hold is on mark zero, and the WAL may reset."""
        job = self._job
        if job is None or job.hold is None or not job.gives_way:
            return
        fresh = database.hold()
        job.gives_way = job.image.keep(self._taker.limits.way_bytes)
        if job.gives_way:
            fresh, job.hold, job.state = job.hold, fresh, database.index.state()
        else:
            log.info(
                "a checkpoint waits until the snapshot of txid %d was read: too many pages changed",
                job.txid,
            )
        database.release(fresh)

    def follow_wal(self, database: LiveDatabase) -> None:
        """Moves a hold that made way into a WAL that began since and became long: a hold on mark
        zero makes each commit of a busy writer sort the whole WAL."""
        job = self._job
        if job is None or job.state is None:
            return
        state = database.index.state()
        if state is None or state.same_wal(job.state):
            return
        if state.frames >= self._capture_limits.roll_over_frames:
            self.make_way(database)

    def _failed(self, job: _Job, error: BaseException) -> None:
        self._not_before = time.monotonic() + self._rule.retry
        for request in self._serving:
            request.set_exception(error)
        self._serving = []
        if not isinstance(error, ReplicatorError):
            raise error
        if isinstance(error, ChangedOutside):
            self._mailbox.report(Incident(Cause.CHANGED_OUTSIDE, str(error)))
        else:
            log.warning("the snapshot of txid %d failed: %s", job.txid, error)

    def _end(self, database: LiveDatabase, job: _Job) -> None:
        job.thread.join()
        job.image.close()
        self._release(database, job)
        self._job = None
        self._limiter.release()

    def _release(self, database: LiveDatabase, job: _Job) -> None:
        if job.hold is not None:
            database.release(job.hold)
            job.hold = None

    def close(self, database: LiveDatabase) -> None:
        """Cancels a running snapshot. Its requests stay without an answer."""
        self._closing = True
        if self._job is not None:
            self._end(database, self._job)
