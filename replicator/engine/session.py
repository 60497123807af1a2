"""A session: follows the WAL of one database, until continuity is lost or it is closed.

Owns: the result of the last look at the WAL, and the snapshots of this session. Refuses: to wait;
the capture thread decides when to call it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

from replicator.cache.cache import Cache
from replicator.cache.records import SegmentRecord
from replicator.capture.holds import WalHolds
from replicator.capture.other_name import OtherName
from replicator.capture.reader import WalReader
from replicator.capture.tip import Head
from replicator.capture.waiting import WaitingCheckpoints
from replicator.engine.examine import Examiner
from replicator.engine.limits import Limits
from replicator.engine.segment_schedule import SegmentSchedule
from replicator.errors import DatabaseUnusable, LedgerDamaged, LocalIOError
from replicator.format.wal import frame_size
from replicator.model import Kind
from replicator.snapshot.schedule import SnapshotFacts
from replicator.snapshot.worker import Snapshots
from replicator.sqlite.live import LiveDatabase, Stamp
from replicator.system import clock
from replicator.system.mailbox import Request
from replicator.upload.watermark import UploadState

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SessionFigures:
    """A session as the status shows it."""

    noticed_ms: int | None  # when the oldest uncaptured commit was noticed, None without one
    uncaptured: int  # bytes of WAL beyond the captured position, at the last look
    wal_frames: int
    poll_interval: float  # seconds
    last_snapshot: SnapshotFacts | None
    identity: tuple[int, int]  # (device, inode) of the file that is followed


class Session:
    """Used by the capture thread alone, but for :attr:`figures`."""

    def __init__(
        self,
        limits: Limits,
        database: LiveDatabase,
        reader: WalReader,
        holds: WalHolds,
        segments: SegmentSchedule,
        examiner: Examiner,
        snapshots: Snapshots,
        cache: Cache,
    ) -> None:
        self._limits = limits.session
        self._new_wal_frames = limits.capture.roll_over_frames
        self._database = database
        self._reader = reader
        self._holds = holds
        self._segments = segments
        self._examiner = examiner
        self._cache = cache
        self._stamp: Stamp | None = None  # of the database file, at the last look
        self._truncating = False  # an idle WAL is to be removed soon
        self._waiting = WaitingCheckpoints(database.index, limits.capture)
        self._other_name = OtherName(database, limits.session.other_name_patience)
        self.problem: DatabaseUnusable | None = None  # why commits may be missing, as of a look
        self._way_blocked = False  # a checkpoint of the application waits for a capture
        self._hashes_after = 0.0  # monotonic; page hashes are not written before
        self._uncaptured = 0
        self.snapshots = snapshots
        self.poll_interval = limits.session.poll_interval
        self.noticed_ms: int | None = None  # when the oldest uncaptured commit was noticed

    @property
    def head(self) -> Head:
        return self._segments.segmenter.tip.head

    @property
    def figures(self) -> SessionFigures:
        return SessionFigures(
            self.noticed_ms,
            self._uncaptured,
            self._reader.position.frame,
            self.poll_interval,
            self.snapshots.last,
            self._database.identity,
        )

    @property
    def busy(self) -> bool:
        """True if something waits for its time: uncaptured commits, a running snapshot, a WAL that
        is to be removed, a checkpoint of the application."""
        waits = self.noticed_ms is not None or self._truncating or self._waiting.suspected
        return waits or self.snapshots.running

    @property
    def at_rest(self) -> bool:
        """True if there is nothing to do before the files change: nothing waits, the file was
        examined as it is, and file events seem to arrive."""
        return (
            self._examiner.done(self._stamp, self._segments.wal_bytes)
            and not self.busy
            and not self.snapshots.waits
            and self.poll_interval == self._limits.poll_interval
        )

    def look(self, *, hinted: bool) -> bool:
        """Checks whether frames follow the captured position. ``DatabaseReplaced``,
        ``ContinuityLost``.

        Frames known to be uncommitted do not count until the WAL is written again. Frames that
        no event announced (not ``hinted``) mean that events do not arrive: poll faster.
        """
        self._stamp = self._holds.check_file()
        self.problem = self._other_name.look()
        self._way_blocked = self.checkpoint_waits() and not self._make_way()
        self.snapshots.follow_wal(self._database)
        if not self._reader.look() or self._segments.nothing_new():
            self._nothing_follows()
            return False
        ahead = self._reader.frames_ahead()
        self._uncaptured = ahead * frame_size(self._reader.position)
        if ahead >= self._new_wal_frames:
            self._holds.hold_new_wal()
        self._segments.observe(ahead)
        if self.noticed_ms is None:
            self.noticed_ms = clock.now_ms()
            if not hinted:
                self.poll_interval = min(self.poll_interval, self._limits.blind_poll)
        return True

    def _make_way(self) -> bool:
        """See :meth:`WalHolds.make_way`. The hold of a snapshot moves twice: the first time lets
        the checkpoint copy the WAL, the second time, on mark zero, lets the WAL reset."""
        self.snapshots.make_way(self._database)
        made = self._holds.make_way()
        self.snapshots.make_way(self._database)
        return made

    @property
    def way_pause(self) -> float:
        """Seconds between two calls of :meth:`checkpoint_waits` while the session is busy."""
        return self._waiting.pause

    def checkpoint_waits(self) -> bool:
        """True if a checkpoint of the application seems to wait for the hold."""
        return self._waiting.look()

    def _nothing_follows(self) -> None:
        self.noticed_ms, self._uncaptured = None, 0

    def due(self, upload: UploadState) -> bool:
        """True if it is time for a segment, see :meth:`SegmentSchedule.due`. Frames in memory are
        due, because the WAL may reset."""
        return self._way_blocked or self._reader.stashed or self._segments.due(upload)

    def calm(self, upload: UploadState) -> float:
        """Seconds for which only further commits are expected: no segment is due before, and
        little is uncaptured so far."""
        little = self.noticed_ms is not None and self._uncaptured < self._limits.calm_bytes
        if not little or self.snapshots.running:
            return 0.0
        return max(0.0, upload.budget.ready_at - time.monotonic())

    def capture(self) -> Iterator[SegmentRecord]:
        """Captures everything that is committed now. Exhaust it: each segment is in the cache
        when it comes."""
        for record in self._segments.capture():
            self.snapshots.logged(record.size)
            yield record
        self._nothing_follows()

    @property
    def detached(self) -> bool:
        """True if the paths name other files than the open ones."""
        return self._database.detached

    def rescue(self) -> Iterator[SegmentRecord]:
        """Captures what the open files still have after they were replaced or removed. Exhaust it,
        like :meth:`capture`. ``ContinuityLost`` if it may not be of this database."""
        self._database.wal.detach()
        yield from self._segments.rescue(self._database.owns_wal)
        self._nothing_follows()

    def care_for_files(self, *, promised: bool) -> None:
        """Call it when no frame waits to be captured: examines the database file if it was
        written, and removes a WAL that no other connection uses. ``promised``: a caller waits for
        the answer."""
        self._examiner.examine(self._stamp, self._segments.wal_bytes, promised=promised)
        self._holds.rest()
        if self.noticed_ms is None and not self.snapshots.running:
            self._truncating = not self._holds.truncate_wal_if_idle()

    def serve_snapshots(self, requests: list[Request]) -> Iterator[SegmentRecord]:
        """Ends a finished snapshot, and begins one if it is due or requested. Exhaust it, like
        :meth:`capture`."""
        self.snapshots.reap(self._database)
        if self.snapshots.wanted(requests):
            hold = self._database.hold()  # before the position is read
            try:
                yield from self.capture()
                header = self._segments.segmenter.describe(
                    Kind.SNAPSHOT, self.head.generation, self.head.txid
                )
                position = self._reader.position
                self.snapshots.begin(self._database, hold, position, header, self.head.state)
            except BaseException:
                self._database.release(hold)
                raise

    def save_hashes(self, durable_txid: int) -> None:
        """Writes the page hashes again, if that is due and they are of the durable state.

        They only save a comparison at the next start, so a disk that refuses them delays nothing.
        """
        if (
            time.monotonic() < self._hashes_after
            or not self._cache.hashes_due()
            or durable_txid != self.head.txid
        ):
            return
        try:
            self._cache.save_hashes(self.head.txid, self._segments.segmenter.tip.hashes)
        except LedgerDamaged:
            raise
        except LocalIOError as error:
            log.warning("%s; the page hashes are written later", error)
            self._hashes_after = time.monotonic() + self._limits.hashes_retry

    def close(self) -> None:
        self.snapshots.close(self._database)
        self._holds.close()
        self._reader.close()
