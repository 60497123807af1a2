"""The numbers of every stage, made once from the settings.

Owns: the step from :class:`SqliteReplicatorConfig` to the limits of each stage, and the numbers of
the engine itself. Refuses: to be changed while a replicator runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from replicator.cache.limits import CacheLimits
from replicator.capture.limits import CaptureLimits
from replicator.config.settings import SqliteReplicatorConfig
from replicator.retention.limits import RetentionLimits
from replicator.snapshot.limits import SnapshotLimits, SnapshotRule
from replicator.store.retry import BACKGROUND_RETRY, CAPTURE_RETRIES, SNAPSHOT_RETRIES, RetryPolicy
from replicator.upload.limits import UploadLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLimits:
    """The rules of a session for segments and for examinations of the database file. Sizes are
    bytes and times are seconds."""

    poll_interval: float = 1.0  # between two looks at the WAL without a file event
    blind_poll: float = 0.1  # the same once commits were found that no file event announced

    # when to make a segment
    segment_max_bytes: int = 32 << 20  # of WAL, after which no interval counts
    # How many times longer than a WAL worth a roll-over the uncaptured part must be to be cut
    # before the interval is over. A request more for each thousand frames buys the writer nothing:
    # its own checkpoints find nothing to copy while the hold stays where it is.
    hurry_factor: int = 4
    roll_over_pause: float = 0.2  # between two segments that serve nothing but the WAL's length
    calm_bytes: int = 4 << 20  # of uncaptured WAL, below which there is no hurry
    scan_rest: float = 5.0  # times as long as a scan of uncommitted frames took before the next

    # writers that outrun the capture
    attempts: int = 8  # to let the WAL reset before the frames that were added since are captured
    early_bytes: int = 6 << 20  # most that waits in memory so that the WAL may reset first
    overrun_bytes: int = 512 << 20  # length of the WAL at which such writers are throttled
    stop_bytes: int = 1 << 30  # length at which they are blocked: the last resort

    # A process that opens or closes the database looks for an instant as one with another name.
    other_name_patience: float = 10.0

    # examining the database file
    examine_rest: float = 1.0  # between two examinations of a file that is written to
    examine_pages: int = 32  # of all pages …
    examine_changed: int = 128  # … and of those that changed lately
    examine_bytes: int = 16 << 20  # each examination reads the WAL: a longer one has to reset first
    likeness_pages: int = 1024  # read to compare a file with the one that was followed
    hash_bytes: int = 4 << 20  # one read of the database while all its pages are hashed
    hashes_retry: float = BACKGROUND_RETRY  # after page hashes that could not be written


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopLimits:
    """Waits of the capture thread, in seconds."""

    tick: float = 0.1  # between two looks while something has to be done soon
    calm_tick: float = 0.2  # while commits wait for their interval; their times are this exact
    rest: float = 0.02  # without file events, after one that announced no commit
    # Before each further look after such an event. It may announce a close, and SQLite releases its
    # locks, which show that the database is still in use, only after it closed the WAL.
    again: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8, 1.6)
    wait_for_database: float = 0.25
    retries: RetryPolicy = CAPTURE_RETRIES  # of its pauses after failures
    # To read a WAL that was replaced or removed, and that the system cannot read: 8 s in all. The
    # database that is at the path now waits for it.
    rescue_tries: int = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The numbers of one replicator."""

    capture: CaptureLimits = field(default_factory=CaptureLimits)
    session: SessionLimits = field(default_factory=SessionLimits)
    loop: LoopLimits = field(default_factory=LoopLimits)
    retention: RetentionLimits = field(default_factory=RetentionLimits)
    cache: CacheLimits = field(default_factory=CacheLimits)
    upload: UploadLimits = field(default_factory=UploadLimits)
    snapshot_rule: SnapshotRule = field(default_factory=SnapshotRule)
    snapshot: SnapshotLimits = field(default_factory=SnapshotLimits)
    snapshot_retries: RetryPolicy = SNAPSHOT_RETRIES
    health_window: float = 10.0  # seconds a commit may wait before the replicator is unhealthy
    answer_patience: float = 4.0  # SeaweedFS lets the loser of a contended write wait for up to 3

    @classmethod
    def of(cls, config: SqliteReplicatorConfig) -> Limits:
        return cls(
            capture=CaptureLimits(level=config.compression_level),
            session=SessionLimits(
                poll_interval=config.poll_interval,
                segment_max_bytes=config.segment_max_bytes,
            ),
            upload=UploadLimits(
                interval=config.sync_interval,
                burst=config.upload_burst,
                keep_bytes=config.max_cache_bytes // 4,
            ),
            snapshot_rule=SnapshotRule(
                interval=config.snapshot_interval,
                ratio=config.snapshot_ratio,
                max_age=config.snapshot_max_age,
            ),
            snapshot=SnapshotLimits(level=config.compression_level),
        )
