"""When a segment is due: rounds of a segment into the cache and a step towards a reset of the WAL.

Owns: the decision that a segment is due, and the measures against writers that outrun the
capture. Refuses: to watch files; its caller looks first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, nullcontext

from replicator.cache.cache import Cache
from replicator.cache.quota import CacheQuota
from replicator.cache.records import SegmentRecord
from replicator.capture.commit_times import WalObservations
from replicator.capture.holds import WalHolds
from replicator.capture.reader import Committed, WalReader
from replicator.capture.segmenter import Segmenter
from replicator.engine.append import append
from replicator.engine.limits import Limits
from replicator.errors import ContinuityLost
from replicator.format.wal import frame_size
from replicator.metrics import Metrics
from replicator.model import WalPosition
from replicator.system import clock
from replicator.upload.watermark import UploadState


class SegmentSchedule:
    """Of one session. Used by the capture thread alone."""

    def __init__(
        self,
        limits: Limits,
        reader: WalReader,
        holds: WalHolds,
        segmenter: Segmenter,
        cache: Cache,
        quota: CacheQuota,
        metrics: Metrics,
    ) -> None:
        self._limits = limits.session
        self._capture_limits = limits.capture
        self._reader = reader
        self._holds = holds
        self._cache = cache
        self._quota = quota
        self._metrics = metrics
        self._observations = WalObservations(limits.capture)
        self._last_cut = 0.0  # monotonic
        self._not_before = 0.0  # monotonic; rest after a scan that found nothing committed
        self._uncommitted: int | None = None  # stamp of the WAL when a scan found nothing
        self.segmenter = segmenter

    @property
    def wal_bytes(self) -> int:
        """Length of the WAL up to the captured position."""
        return self._reader.position.frame * frame_size(self._reader.position)

    def nothing_new(self) -> bool:
        """True if the frames that follow are known to be uncommitted: the WAL was not written
        since a scan of them."""
        return self._uncommitted is not None and self._uncommitted == self._reader.stamp()

    def observe(self, ahead: int) -> None:
        """The WAL has ``ahead`` more frames: commits among them are no younger than now."""
        if (end := self._reader.seen_end(ahead)) is not None:
            self._observe(end)

    def _observe(self, end: WalPosition) -> None:
        now_ms = clock.now_ms()
        self._observations.record(end, min(now_ms, self._reader.written_ms() or now_ms))

    def due(self, upload: UploadState) -> bool:
        """True if it is time for a segment: the budget of uploads has room and the store is ready,
        or much is uncaptured.

        While the store is away the WAL itself is the buffer, so that its frames become few large
        segments, which drain at bandwidth and not at one round trip for each.
        """
        now = time.monotonic()
        if now < self._not_before:
            return False
        if now >= upload.budget.ready_at and upload.idle:
            return True
        size = frame_size(self._reader.position)
        if self._reader.reaches(self._limits.segment_max_bytes // size):
            return True
        paused = now - self._last_cut >= self._limits.roll_over_pause
        hurry = self._limits.hurry_factor * self._capture_limits.roll_over_frames
        long = paused and self._reader.reaches(hurry)
        return long and upload.health.error is None

    def capture(self) -> Iterator[SegmentRecord]:
        """Captures everything that is committed now, and lets a long WAL reset. Exhaust it: each
        segment is in the cache when it comes."""
        if self._reader.stashed:  # these frames were read before: more may be committed since
            yield from self._round(outrun=False)
        outrun = False
        began, stamp, position = time.monotonic(), self._reader.stamp(), self._reader.position
        ahead = self._reader.frames_ahead()
        while not (yield from self._round(outrun=outrun)):
            before, ahead = ahead, self._reader.frames_ahead()
            if not outrun and ahead >= before:
                outrun = True
                self._holds.backfill()
        if ahead and self._reader.position == position:  # an uncommitted transaction
            self._uncommitted = stamp
            self._not_before = time.monotonic() + self._limits.scan_rest * (
                time.monotonic() - began
            )

    def _round(self, *, outrun: bool) -> Generator[SegmentRecord, None, bool]:
        """One segment, then a step for the WAL. True once nothing more waits. ``outrun``: writers
        are faster than that."""
        with self._restraint(outrun=outrun):
            found, settled = self._find()
            if found is not None:
                self._holds.check_file()  # the WAL was found by its path
                self._quota.require(found.raw_bytes)
                self._observe(found.end)
                yield self._cut(found)
            settled = self._let_reset() if settled is None else settled
        return not self._reader.stashed and settled and (found is None or found.complete)

    def rescue(self, owned: Callable[[], bool]) -> Iterator[SegmentRecord]:
        """Captures the rest of a WAL whose file or database was replaced or removed; no hold moves.
        Exhaust it. ``ContinuityLost`` if the frames may be of another database: not ``owned``."""
        complete = False
        while not complete:
            kept = self._reader.stashed  # frames read before: more may be committed since
            found = self._reader.find(self._limits.segment_max_bytes)
            if found is None:
                return
            if not owned():  # asked after the frames were read
                raise ContinuityLost("the last frames of the WAL may be of another database")
            self._quota.require(found.raw_bytes)
            self._observe(found.end)
            yield self._cut(found)
            complete = found.complete and not kept

    def _restraint(self, *, outrun: bool) -> AbstractContextManager[object]:
        """The measure against writers that outrun the capture, by the length of the WAL."""
        if not outrun or self.wal_bytes < self._limits.overrun_bytes:
            return nullcontext()
        backpressure = self._holds.backpressure
        stop = self.wal_bytes >= self._limits.stop_bytes
        return backpressure.block() if stop else backpressure.throttle()

    def _find(self) -> tuple[Committed | None, bool | None]:
        """The frames for the next segment, and, if the WAL was dealt with already, whether that
        is settled.

        A long WAL may reset before the segment is made if memory permits, so that the frames
        which are added until then are in the same segment.
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
        self._observe(found.end)
        self._reader.keep(found)
        settled = self._let_reset()
        return self._reader.find(self._limits.segment_max_bytes), settled

    def _let_reset(self) -> bool:
        """Moves the hold, and lets a long WAL reset; False if so many frames were added that they
        should be captured at once.

        Each attempt reads into memory the frames added during the one before. All of them
        become one segment in the end, instead of a request for each attempt.
        """
        began = self._reader.read_position
        settled = self._holds.settle()
        for _ in range(self._limits.attempts):
            if not settled or self._holds.waiting or self._reader.read_position == began:
                break
            settled = self._holds.settle()
        return settled

    def _cut(self, found: Committed) -> SegmentRecord:
        """Puts the frames of ``found`` into the cache as one segment."""
        behind = not found.complete or found.raw_bytes > self._limits.segment_max_bytes
        encoding = self.segmenter.segment(
            found.start,
            self._reader.batches(found),
            found.end,
            self._observations,
            far=found.far,
            fast=behind,
        )
        record = append(self._cache, self.segmenter.tip, encoding)
        self._reader.advance(found.end)
        self._observations.captured(found.end)
        self._last_cut = time.monotonic()
        self._metrics.add("segments")
        self._metrics.add("captured_transactions", record.last_txid - record.first_txid + 1)
        self._metrics.add("captured_bytes", found.raw_bytes)
        self._metrics.add("captured_frames", found.end.frame - found.start.frame)
        return record
