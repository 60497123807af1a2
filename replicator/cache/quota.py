"""The limit of the cache: waiting segments stay within it, however long the store is away.

Owns: the order of the losses. First the files of acknowledged segments go, then restore points
(waiting segments are squashed), last the frames of the WAL: it may reset, and once there is space
again their pages are caught up from the database. Refuses: to lose data.
"""

from __future__ import annotations

import logging

from replicator.cache.cache import Cache, Offered
from replicator.cache.records import SegmentRecord
from replicator.cache.squash import TooLarge, squash, squashable
from replicator.errors import CacheFull, DamageError
from replicator.format.integrity import Integrity
from replicator.metrics import Metrics
from replicator.model import Cause, Incident
from replicator.system import clock
from replicator.system.mailbox import Mailbox

log = logging.getLogger(__name__)


class CacheQuota:
    """Used by the capture thread alone."""

    def __init__(
        self,
        cache: Cache,
        metrics: Metrics,
        mailbox: Mailbox,
        *,
        max_bytes: int,
        level: int,
        created_by: str,
        integrity: Integrity | None = None,
    ) -> None:
        """``max_bytes`` of segments at most; ``level`` of zstd for squashed ones, and the keys that
        seal them."""
        self._integrity = integrity
        self._limit = max_bytes
        self._level = level
        self._cache = cache
        self._metrics = metrics
        self._mailbox = mailbox
        self._created_by = created_by
        self._squashed_to = 0  # bytes that waited after the last squash

    def require(self, raw_bytes: int) -> None:
        """Make room for a segment of up to ``raw_bytes``; ``CacheFull`` when there is none."""
        pending, limit = self._cache.pending_bytes(), self._bound()
        if pending + raw_bytes > limit // 2:
            pending = self._squash(pending, limit)
        if self._cache.usage() + raw_bytes > limit:
            self._cache.trim(max(0, limit - pending - raw_bytes))
        if pending > limit // 2 and pending + raw_bytes > limit:
            raise CacheFull(
                f"{pending} bytes wait in the cache, which may hold {limit}",
                pending_bytes=pending,
                limit_bytes=limit,
                hint="nothing is lost: the missed changes are caught up from the database",
            )

    def half_is_free(self) -> bool:
        """Returns True if half of the cache is free, or can be made free: enough to start again."""
        pending, limit = self._cache.pending_bytes(), self._bound()
        if pending > limit // 2:
            pending = self._squash(pending, limit)
        if self._cache.usage() > limit:
            self._cache.trim(pending)
        return pending <= limit // 2

    def _bound(self) -> int:
        """Bytes that segments may take: the setting, or less if the disk has less space."""
        return min(self._limit, max(0, self._cache.usage() + self._cache.spare()))

    def _squash(self, pending: int, limit: int) -> int:
        """Squash the waiting segments if they grew enough; the bytes that wait afterwards.

        Each squash writes every waiting byte once more, so only twice as much as the last one
        left is worth another one: then a byte is written about twice in all.
        """
        if pending < 2 * self._squashed_to:
            return pending
        self._cache.trim(pending)
        records = squashable(self._cache.pending())
        if not records:
            return pending
        try:
            record = squash(
                self._cache,
                records,
                created_by=self._created_by,
                created_ms=clock.now_ms(),
                level=self._level,
                most_bytes=limit - self._cache.usage(),
                integrity=self._integrity,
            )
        except (Offered, TooLarge) as error:
            log.info("nothing was squashed: %s", error)
            self._squashed_to = pending
            return pending
        except DamageError as error:
            self._report(next(r for r in records if r.key == error.key), error)
            return pending
        self._metrics.add("squashes")
        self._squashed_to = self._cache.pending_bytes()
        log.warning(
            "the store is away and the cache fills up: %d segments were squashed into "
            "one of %d bytes; of transactions %d to %d only the last can be restored",
            len(records),
            record.size,
            record.first_txid,
            record.last_txid,
        )
        return self._squashed_to

    def _report(self, record: SegmentRecord, error: DamageError) -> None:
        """Of a segment that the uploader was quicker to send, the file may be gone already."""
        if not self._cache.waits(record):
            log.info("nothing was squashed: %s, for it is in the store", error)
            return
        log.warning("nothing was squashed: %s", error)
        reason = "a segment in the cache was damaged"
        self._mailbox.report(Incident(Cause.SEGMENT_DAMAGED, reason, record.first_txid))
