"""A session: one database whose log is followed, until continuity is lost or it is closed."""

from __future__ import annotations

import logging
import random
import time
from contextlib import AbstractContextManager, nullcontext

from replicator.cache.cache import Cache
from replicator.cache.quota import CacheQuota
from replicator.cache.records import SegmentRecord
from replicator.capture.commit_times import WalObservations
from replicator.capture.holds import WalHolds
from replicator.capture.image import Image
from replicator.capture.reader import Committed, WalReader
from replicator.capture.segmenter import Head, Segmenter
from replicator.engine.append import append
from replicator.engine.limits import Limits
from replicator.errors import ChangedOutside, LedgerDamaged, LocalIOError
from replicator.format.wal import frame_size
from replicator.metrics import Metrics
from replicator.model import Kind, WalPosition
from replicator.snapshot.schedule import Request, Snapshots
from replicator.sqlite.live import LiveDatabase, Stamp
from replicator.system import clock
from replicator.upload.uploader import Uploader

log = logging.getLogger(__name__)


class Session:
    """Used by the capture thread alone, but for the plain attributes that status reads."""

    def __init__(
        self,
        limits: Limits,
        database: LiveDatabase,
        reader: WalReader,
        holds: WalHolds,
        segmenter: Segmenter,
        snapshots: Snapshots,
        cache: Cache,
        room: CacheQuota,
        uploader: Uploader,
        metrics: Metrics,
    ) -> None:
        self._limits = limits.session
        self._capture_limits = limits.capture
        self._database = database
        self._reader = reader
        self._holds = holds
        self._segmenter = segmenter
        self._observations = WalObservations(limits.capture)
        self._cache = cache
        self._room = room
        self._uploader = uploader
        self._metrics = metrics
        self._last_cut = 0.0
        self._not_before = 0.0  # monotonic; rest after a scan that found nothing committed
        self._uncommitted: int | None = None  # stamp of the log when a scan found nothing
        self._stamp: Stamp | None = None  # of the database file, at the last look
        self._examined: Stamp | None = None  # the same, when it was examined last
        self._examine_at = 0.0  # monotonic
        self._hashes_after = 0.0  # monotonic
        self._leaving = False
        self.uncaptured = 0  # bytes of log beyond the captured position, as of the last look
        self.snapshots = snapshots
        self.poll_interval = limits.session.poll_interval
        self.noticed_ms: int | None = None  # when the oldest commit not captured was noticed

    @property
    def head(self) -> Head:
        return self._segmenter.head

    @property
    def wal_frames(self) -> int:
        return self._reader.position.frame

    @property
    def log_bytes(self) -> int:
        """Length of the log up to the captured position."""
        return self._reader.position.frame * frame_size(self._reader.position)

    @property
    def busy(self) -> bool:
        """Whether something waits for its time: commits to cut, a snapshot under way, a log to
        be removed."""
        return self.noticed_ms is not None or self.snapshots.running or self._leaving

    @property
    def at_rest(self) -> bool:
        """Whether nothing is to be done before the files change: nothing waits, the file was
        examined as it is, and file events reach us as far as is known."""
        examined = self._stamp == self._examined or self.log_bytes > self._limits.examine_bytes
        return (
            examined
            and not self.busy
            and not self.snapshots.waits
            and self.poll_interval == self._limits.poll_interval
        )

    def look(self, *, hinted: bool) -> bool:
        """Whether frames follow the captured position. ``DatabaseReplaced``, ``ContinuityLost``.

        Frames that are known not to be committed do not count until the log is written again.
        Frames that no event announced mean that events do not reach us: poll faster.
        """
        self._stamp = self._holds.check_file()
        if not self._reader.look() or self._nothing_new():
            self.noticed_ms, self.uncaptured = None, 0
            return False
        ahead = self._reader.frames_ahead()
        self.uncaptured = ahead * frame_size(self._reader.position)
        if ahead >= self._capture_limits.roll_over_frames:
            self._holds.hold_new_wal()
        if (seen := self._reader.seen_end(ahead)) is not None:
            self._sighted(seen)
        if self.noticed_ms is None:
            self.noticed_ms = clock.now_ms()
            if not hinted:
                self.poll_interval = min(self.poll_interval, self._limits.blind_poll)
        return True

    def _sighted(self, end: WalPosition) -> None:
        """The log goes to ``end``: whatever lies before it was written no later than now."""
        self._observations.record(
            end, min(clock.now_ms(), self._reader.written_ms() or clock.now_ms())
        )

    def _nothing_new(self) -> bool:
        return self._uncommitted is not None and self._uncommitted == self._reader.stamp()

    def due(self) -> bool:
        """Whether to cut now: the interval is over and the store is ready, or it is plenty.

        While the store is away the log itself is the buffer, so that what waits becomes few
        large segments, which drain at bandwidth and not at one round trip for each.
        """
        now = time.monotonic()
        if now < self._not_before:
            return False
        if now >= self._interval_ends and self._uploader.idle:
            return True
        size = frame_size(self._reader.position)
        if self._reader.reaches(self._limits.segment_max_bytes // size):
            return True
        paused = now - self._last_cut >= self._limits.roll_over_pause
        long = paused and self._reader.reaches(
            self._limits.hurry_factor * self._capture_limits.roll_over_frames
        )
        return long and self._uploader.failing is None

    def calm(self) -> float:
        """Seconds for which nothing but further commits is to be expected: they are not due
        before, and few came so far."""
        few = self.noticed_ms is not None and self.uncaptured < self._limits.calm_bytes
        if not few or self.snapshots.running:
            return 0.0
        return max(0.0, self._interval_ends - time.monotonic())

    @property
    def _interval_ends(self) -> float:
        """When the least time since the newest upload began is over (monotonic)."""
        return self._uploader.last_began + self._limits.sync_interval

    def capture(self) -> None:
        """Capture everything that is committed now, and let the log go if it is long."""
        outrun = False
        began, stamp, position = time.monotonic(), self._reader.stamp(), self._reader.position
        ahead = self._reader.frames_ahead()
        while not self._round(outrun=outrun):
            before, ahead = ahead, self._reader.frames_ahead()
            if not outrun and ahead >= before:
                outrun = True
                self._holds.backfill()
        if ahead and self._reader.position == position:  # a transaction not committed yet
            self._uncommitted = stamp
            self._not_before = time.monotonic() + self._limits.scan_rest * (
                time.monotonic() - began
            )

    def _round(self, *, outrun: bool) -> bool:
        """Cut one segment, then see to the log. True once nothing more waits. ``outrun``: writers
        are faster than that."""
        with self._restraint(outrun=outrun):
            found, settled = self._find()
            if found is not None:
                self._holds.check_file()  # the log was found by its path
                self._room.require(found.raw_bytes)
                self._sighted(found.end)
                self._count(self._cut(found), found)
            settled = self._let_go() if settled is None else settled
        if self._reader.stashed or not settled or (found is not None and not found.complete):
            return False
        self.noticed_ms, self.uncaptured = None, 0
        return True

    def _cut(self, found: Committed) -> SegmentRecord:
        """Put the frames of ``found`` into the cache as one segment."""
        encoding = self._segmenter.segment(
            found.start,
            self._reader.batches(found),
            found.end,
            self._observations,
            far=found.far,
            fast=self._behind(found),
        )
        record = append(self._cache, self._segmenter, encoding)
        self._reader.advance(found.end)
        self._observations.captured(found.end)
        return record

    def _restraint(self, *, outrun: bool) -> AbstractContextManager[object]:
        """What is done about writers that outrun us, by the length of the log."""
        if not outrun or self.log_bytes < self._limits.overrun_bytes:
            return nullcontext()
        backpressure = self._holds.backpressure
        return (
            backpressure.block()
            if self.log_bytes >= self._limits.stop_bytes
            else backpressure.throttle()
        )

    def _find(self) -> tuple[Committed | None, bool | None]:
        """What to cut, and, if the log was seen to already, whether that is settled.

        A log that is to be let go is let go before the cut where memory allows, so that what
        comes meanwhile is in the same segment.
        """
        found = self._reader.find(self._limits.segment_max_bytes)
        early = (
            found is not None
            and found.complete
            and found.raw_bytes <= self._limits.early_bytes
            and self._capture_limits.long_wal(found.end)
        )
        if found is None or not early:
            return found, None
        self._holds.check_file()
        self._sighted(found.end)
        self._reader.keep(found)
        settled = self._let_go()
        return self._reader.find(self._limits.segment_max_bytes), settled

    def _let_go(self) -> bool:
        """See to the log; False when so much came meanwhile that it is to be captured at once.

        Each attempt to let the log go takes into memory what came during the one before. All of
        that becomes one segment in the end, where it would else be a request for each attempt.
        """
        began = self._reader.read_position
        settled = self._holds.settle()
        for _ in range(self._limits.attempts):
            if not settled or self._holds.waiting or self._reader.read_position == began:
                break
            settled = self._holds.settle()
        return settled

    def _behind(self, found: Committed) -> bool:
        return not found.complete or found.raw_bytes > self._limits.segment_max_bytes

    def _count(self, record: SegmentRecord, found: Committed) -> None:
        self._last_cut = time.monotonic()
        self.snapshots.logged(record.size)
        self._metrics.add("segments")
        self._metrics.add("captured_transactions", record.last_txid - record.first_txid + 1)
        self._metrics.add("captured_bytes", found.raw_bytes)
        self._metrics.add("captured_frames", found.end.frame - found.start.frame)
        self._uploader.wake()

    def see_to_file(self, *, promised: bool) -> None:
        """Call it when nothing waits to be captured: examine the database file if it was
        written, and leave an empty log when nobody else has it open. ``promised``: somebody
        waits for the answer."""
        due = promised or time.monotonic() >= self._examine_at
        if self._stamp != self._examined and due and self.log_bytes <= self._limits.examine_bytes:
            self._examine()
        if self.noticed_ms is None and not self.snapshots.running:
            self._leaving = not self._holds.truncate_wal_if_idle()

    def _examine(self) -> None:
        """``ChangedOutside`` when pages of the file are not what the log made of them.

        Checkpoints write to the file; so do people who copy another one over it. A sample
        tells: the first page and the last, some at random, and those that changed lately,
        which an older copy does not have.
        """
        stamp, hold = self._holds.check_file(), self._database.hold()
        try:
            if self._reader.look():
                return  # commits came meanwhile, which the hashes do not know
            with Image(self._database, self._capture_limits, self._reader.position) as image:
                if not self._database.header().wal_mode or not self._equals_sample(image):
                    raise ChangedOutside(f"{self._database.path} was overwritten")
        finally:
            self._database.release(hold)
        self._examined, self._examine_at = stamp, time.monotonic() + self._limits.examine_rest

    def _equals_sample(self, image: Image) -> bool:
        hashes = self._segmenter.hashes
        changed = self._segmenter.changed
        sample = {
            1,
            image.pages,
            *random.sample(changed, min(len(changed), self._limits.examine_changed)),
            *(random.randint(1, image.pages) for _ in range(self._limits.examine_pages)),
        }
        return image.pages == hashes.pages and not any(
            len(hashes.differing(pgno, image.read(pgno, 1)))
            for pgno in sorted(sample)
            if pgno <= image.pages
        )

    def serve_snapshots(self, requests: list[Request]) -> None:
        """End a snapshot that is through; start one when it is due or asked for."""
        self.snapshots.reap(self._database)
        if self.snapshots.wanted(requests):
            hold = self._database.hold()  # before the position is read
            try:
                self.capture()
                head = self.head
                header = self._segmenter.describe(Kind.SNAPSHOT, head.generation, head.txid)
                self.snapshots.begin(
                    self._database, hold, self._reader.position, header, head.state
                )
            except BaseException:
                self._database.release(hold)
                raise
        self._save_hashes()

    def _save_hashes(self) -> None:
        """Write the page hashes anew, if that is due. They save a comparison at the next start
        and no more, so a disk that refuses them keeps nobody waiting."""
        if (
            time.monotonic() < self._hashes_after
            or not self._cache.hashes_due()
            or self._uploader.durable_txid != self.head.txid
        ):
            return
        try:
            self._cache.save_hashes(self.head.txid, self._segmenter.hashes)
        except LedgerDamaged:
            raise
        except LocalIOError as error:
            log.warning("%s; the page hashes are written later", error)
            self._hashes_after = time.monotonic() + self._limits.hashes_retry

    def close(self) -> None:
        self.snapshots.close(self._database)
        self._holds.close()
        self._reader.close()
