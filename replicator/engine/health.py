"""The status: a fold over the health of every stage. Pure.

Owns: when a replicator is healthy, how far it lags, and which failure is shown. Refuses: to look at
a stage; it gets values, all of one instant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from replicator.archive.records import ProofRecord
from replicator.cache.records import SegmentRecord
from replicator.engine.session import SessionFigures
from replicator.errors import ReplicatorError
from replicator.metrics import Metrics
from replicator.model import Failure, Health, ReplicationStatus
from replicator.upload.watermark import UploadState

# Fields of the status that are metrics too.
MIRRORED = (
    "txid",
    "durable_txid",
    "healthy",
    "lag_seconds",
    "lag_bytes",
    "pending_segments",
    "pending_bytes",
)
UNKNOWN_LAG = ("starting", "stalled")  # states in which commits are not noticed


@dataclass(frozen=True, slots=True)
class CacheFigures:
    """The cache as the status shows it; its last known contents while its disk refuses."""

    pending: Sequence[SegmentRecord] = ()
    head: SegmentRecord | None = None
    used_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """The values of all stages at one instant. Times are ms unless a name has another unit."""

    database: str
    url: str
    running: bool
    now_ms: int
    window: float  # seconds that a commit may wait before the replicator is unhealthy
    unseen: float  # seconds since the WAL was known to contain nothing unnoticed
    capture: Health
    upload: UploadState
    store: Health
    cache: Health
    monitor: Health
    retention: Health | None
    newest: Failure | None  # the newest failure of any stage
    contents: CacheFigures
    session: SessionFigures | None  # None before the first session
    source: tuple[int, int] | None  # (device, inode) of the file at the path, None without one
    metrics: Mapping[str, float]
    proven: ProofRecord | None
    unsaved_bytes: int  # of a database that is not in the bucket yet

    @property
    def error(self) -> ReplicatorError | None:
        """Why the replicator is not healthy; retention that waits is no reason."""
        stages = (self.upload.health, self.capture, self.store, self.cache, self.monitor)
        return next((stage.error for stage in stages if stage.error is not None), None)


def fold(seen: Observations) -> ReplicationStatus:
    """The status that these values amount to."""
    contents, session, metrics = seen.contents, seen.session, seen.metrics
    head, snapshot = contents.head, session.last_snapshot if session else None
    lag_ms, newest = _lag_ms(seen), _newest(seen)
    return ReplicationStatus(
        running=seen.running and seen.capture.state != "failed",
        healthy=_healthy(seen, lag_ms),
        state=seen.capture.state if seen.running else "stopped",
        database=seen.database,
        url=seen.url,
        generation=head.generation if head else "",
        txid=head.last_txid if head else 0,
        durable_txid=seen.upload.durable_txid,
        pending_segments=len(contents.pending),
        pending_bytes=sum(record.size for record in contents.pending),
        lag_seconds=lag_ms / 1000,
        lag_bytes=_lag_bytes(seen),
        wal_frame_count=session.wal_frames if session else 0,
        last_wal_sync=int(metrics["last_upload_ms"]) or None,
        last_snapshot=snapshot.at_ms if snapshot else None,
        last_snapshot_txid=snapshot.txid if snapshot else None,
        failed_uploads=int(metrics["failed_uploads"]),
        uploaded_bytes=int(metrics["uploaded_bytes"]),
        uploaded_objects=int(metrics["uploaded_objects"]),
        roll_overs=int(metrics["roll_overs"]),
        write_lock_holds=int(metrics["write_lock_holds"]),
        longest_write_lock_ms=metrics["longest_write_lock_ms"],
        last_error=_text(newest.error if newest else None),
        last_error_at=newest.at_ms if newest else None,
        last_verified_txid=seen.proven.txid if seen.proven else None,
        last_verified_ms=seen.proven.at_ms if seen.proven else None,
        retention_error=str(seen.retention.error)
        if seen.retention and seen.retention.error
        else None,
    )


def _text(error: ReplicatorError | None) -> str | None:
    return None if error is None else str(error)


def _healthy(seen: Observations, lag_ms: int) -> bool:
    return (
        seen.running and seen.error is None and lag_ms < 1000 * seen.window and _would_notice(seen)
    )


def _would_notice(seen: Observations) -> bool:
    """True if a commit would be noticed: the file at the path is followed, and its WAL was looked
    at within the window."""
    if seen.capture.state != "following" or seen.session is None:
        return False
    longest = seen.session.poll_interval + seen.window
    return seen.source == seen.session.identity and seen.unseen < longest


def _lag_ms(seen: Observations) -> int:
    """Age of the oldest commit that is not durable."""
    commits = [record.first_commit_ms for record in seen.contents.pending]
    if seen.session is not None and seen.session.noticed_ms:
        commits.append(seen.session.noticed_ms)
    lag_ms = max(0, seen.now_ms - min(commits)) if commits else 0
    unknown_ms = round(1000 * seen.unseen) if seen.capture.state in UNKNOWN_LAG else 0
    return max(lag_ms, unknown_ms)


def _lag_bytes(seen: Observations) -> int:
    """Bytes of committed WAL that are not durable; of the whole database before its first
    snapshot."""
    waiting = sum(record.raw_bytes for record in seen.contents.pending)
    uncaptured = seen.session.uncaptured if seen.session else 0
    return waiting + uncaptured + (0 if seen.contents.head else seen.unsaved_bytes)


def _newest(seen: Observations) -> Failure | None:
    """The newest failure. A cache that refuses to be read fails now, and so does a database that
    is missing; it is no failure any longer once it came."""
    if seen.cache.error is not None:
        return Failure(seen.cache.error, seen.now_ms)
    if seen.capture.state == "waiting" and seen.capture.error is not None:
        return Failure(seen.capture.error, seen.capture.since_ms)
    return seen.newest


def export(status: ReplicationStatus, cache_bytes: int, metrics: Metrics) -> None:
    """Keeps the gauges that mirror the status as live as it is."""
    for name in MIRRORED:
        metrics.set(name, getattr(status, name))
    metrics.set("wal_frames", status.wal_frame_count)
    metrics.set("cache_bytes", cache_bytes)
