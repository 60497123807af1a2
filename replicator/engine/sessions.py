"""Makes sessions: from an open database and a proved position to one that follows the WAL.

Owns: the parts that all sessions of a replicator share. Refuses: to prove the position; see
:mod:`.resume`.
"""

from __future__ import annotations

from replicator.cache.quota import CacheQuota
from replicator.capture.holds import WalHolds
from replicator.capture.reader import WalReader
from replicator.capture.segmenter import Segmenter
from replicator.capture.tip import Head, Tip
from replicator.engine.context import Context
from replicator.engine.evidence import remember_file
from replicator.engine.examine import Examiner
from replicator.engine.segment_schedule import SegmentSchedule
from replicator.engine.session import Session
from replicator.format.page_hashes import PageHashes
from replicator.model import WalPosition
from replicator.snapshot.base import BaseFinder
from replicator.snapshot.resume import UploadJournal
from replicator.snapshot.take import SnapshotTaker
from replicator.snapshot.worker import Snapshots
from replicator.sqlite.live import Hold, LiveDatabase
from replicator.system import clock
from replicator.system.limiter import CapacityLimiter
from replicator.upload.watermark import Watermark


class Sessions:
    """Used by the capture thread alone. ``limiter`` bounds the snapshots of this process that
    are under way at once."""

    def __init__(
        self, context: Context, quota: CacheQuota, watermark: Watermark, limiter: CapacityLimiter
    ) -> None:
        self._context = context
        self._quota = quota
        self._watermark = watermark
        self._limiter = limiter
        self._bases = BaseFinder(context.patient)
        self.journal = UploadJournal(context.cache, context.store, context.keys)

    def segmenter(self, hashes: PageHashes, head: Head) -> Segmenter:
        """Makes the objects that follow ``head``."""
        context = self._context
        return Segmenter(
            context.author,
            context.keys,
            Tip(hashes, head, context.limits.capture),
            context.limits.capture,
            clock_ms=clock.now_ms,
        )

    def open(
        self,
        database: LiveDatabase,
        hold: Hold,
        segmenter: Segmenter,
        position: WalPosition,
        *,
        anchored: bool = True,
    ) -> Session:
        """Follow the WAL from ``position``, which ``hold`` protects. ``StoreUnsafe``."""
        context, limits = self._context, self._context.limits
        context.check_store()
        remember_file(context.cache, database)
        reader = WalReader(database.wal, position, limits.capture, anchored=anchored)
        holds = WalHolds(database, reader, hold, context.metrics, limits.capture)
        segments = SegmentSchedule(
            limits, reader, holds, segmenter, context.cache, self._quota, context.metrics
        )
        return Session(
            limits,
            database,
            reader,
            holds,
            segments,
            Examiner(database, reader, holds, segmenter.tip, limits),
            self._snapshots(),
            context.cache,
        )

    def _snapshots(self) -> Snapshots:
        context, limits = self._context, self._context.limits
        taker = SnapshotTaker(
            context.database.name,
            context.patient,
            context.keys,
            self.journal,
            self._bases,
            self._watermark,
            limits.snapshot,
        )
        return Snapshots(
            taker,
            limits.snapshot_rule,
            limits.capture,
            context.cache,
            context.mailbox,
            context.metrics,
            self._limiter,
        )
