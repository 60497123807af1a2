"""The values that stages exchange.

Owns their definition: frozen, and without behaviour. Refuses I/O.

Times are milliseconds since the epoch (UTC) unless a name has another unit; sizes are bytes.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from replicator.errors import ReplicatorError


class Kind(enum.IntEnum):
    """The content of an object."""

    SNAPSHOT = 1  # the whole database after a txid
    SEGMENT = 2  # the transactions first … last, as a WAL file
    GENERATION = 3  # a generation begins at this txid with the snapshot of the same txid
    CATCH_UP = 4  # one transaction made of the pages that differ after a gap
    MERGE = 5  # several segments as one; every transaction kept
    MERGE_NEWEST = 6  # several segments as one; only the newest image of each page kept


@dataclass(frozen=True, slots=True)
class WalPosition:
    """A position in one WAL: directly after ``frame`` frames (0: after the header).

    ``checksum`` is the cumulative pair there (of the header when ``frame`` is 0).
    Source: SQLite documentation, "WAL-mode File Format".
    """

    salt1: int
    salt2: int
    frame: int
    checksum: tuple[int, int]
    big_endian: bool  # byte order of the checksum words
    page_size: int


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """The database after a transaction, as far as needed to prove equality.

    ``checksum`` is the XOR over all pages of the 64-bit page hash.
    """

    pages: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Position:
    """A position in the archive: the state after ``txid`` in ``generation``."""

    generation: str
    txid: int


class Cause(enum.Enum):
    """What a stage found, that another stage acts on or that users should see."""

    ARCHIVE_LOST = "archive lost"  # the store no longer has an object that it acknowledged
    OVERTAKEN = "overtaken"  # another writer appended to the archive since
    SEGMENT_DAMAGED = "segment damaged"  # a waiting segment in the cache is not the one captured
    CHANGED_OUTSIDE = "changed outside"  # the database file differs from its captured state
    TAKE_OVER = "take-over ordered"  # the archive is to be taken over from its writer
    UNRESTORABLE = "unrestorable"  # the archive cannot give the newest transaction back
    LEDGER_LOST = "ledger lost"  # the cache has to begin again, empty
    UPLOAD_ENDED = "upload ended"  # nothing will be appended any more
    SOURCE_SHRANK = "source shrank"  # the database lost half of its pages, or all of its tables
    SOURCE_REPLACED = "source replaced"  # by another file, or by other pages in the same one
    SOURCE_DAMAGED = "source damaged"  # an object that a merge needs is damaged or gone
    STORE_SLOW = "store slow"  # a request waits for its answer too long
    STORE_FAILED = "store failed"  # a request failed and is repeated
    UPLOAD_FAILED = "upload failed"  # an append failed and is repeated
    CAPTURE_FAILED = "capture failed"  # the capture failed and is repeated


@dataclass(frozen=True, slots=True)
class Incident:
    """One thing that a stage found. ``detail`` is a reason in words, ``txid`` the first
    transaction concerned, ``error`` the failure, where there are any."""

    cause: Cause
    detail: str = ""
    txid: int | None = None
    error: ReplicatorError | None = None

    def __str__(self) -> str:
        return self.detail or str(self.error or self.cause.value)


@dataclass(frozen=True, slots=True)
class ReplicationEvent:
    """Something that happened to a replicator. Programs decide by ``name``, see docs/library.md."""

    number: int  # grows by one; a new sidecar begins anew
    at_ms: int
    name: str
    detail: str = ""  # in words
    code: str = ""  # of the error
    txid: int | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """An error, and when it happened (ms)."""

    error: ReplicatorError
    at_ms: int


@dataclass(frozen=True, slots=True)
class Health:
    """How one stage is. ``error`` is the newest reason why it does not do its work, None while it
    does; ``since_ms`` is when the state began."""

    state: str
    error: ReplicatorError | None = None
    since_ms: int = 0

    def after(self, state: str, error: ReplicatorError | None = None, *, at_ms: int) -> Health:
        """The health from ``at_ms`` on."""
        return Health(state, error, self.since_ms if state == self.state else at_ms)


@dataclass(frozen=True, slots=True)
class Repair:
    """A repair of an archive whose newest transaction could not be restored. ``txid`` is the
    verified transaction, ``action`` one of none, snapshot, generation."""

    txid: int
    action: str
    reason: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """The rules of retention. Each span is in seconds back from now; 0 is off, infinity for ever.

    Keeps every transaction for ``every_transaction``, then the last state of each hour, day, week
    and month (UTC), and in any case the newest ``snapshots`` snapshots.
    """

    every_transaction: float = 7 * 86400.0
    hourly: float = 30 * 86400.0
    daily: float = 90 * 86400.0
    weekly: float = 0.0
    monthly: float = 0.0
    snapshots: int = 2


@dataclass(frozen=True, slots=True)
class ReplicationStatus:
    """The current state of one replicator.

    "healthy" means that the durable position equals the database's position, or did within the
    last ``health_window`` seconds.
    """

    running: bool
    healthy: bool
    state: str  # waiting | starting | following | idle | stalled | stopped | failed
    database: str
    url: str
    generation: str
    txid: int  # newest transaction captured
    durable_txid: int  # newest transaction acknowledged by the store, contiguous
    pending_segments: int
    pending_bytes: int
    lag_seconds: float  # age of the oldest commit that is not durable, 0 if all are
    lag_bytes: int  # bytes of committed WAL that are not durable
    wal_frame_count: int  # frames in the WAL now
    last_wal_sync: int | None  # time of the last acknowledged segment
    last_snapshot: int | None  # time of the last acknowledged snapshot
    last_snapshot_txid: int | None
    failed_uploads: int
    uploaded_bytes: int
    uploaded_objects: int
    roll_overs: int
    write_lock_holds: int
    longest_write_lock_ms: float
    last_error: str | None
    last_error_at: int | None
    last_verified_txid: int | None = None  # newest transaction that a drill restored …
    last_verified_ms: int | None = None  # … and the time of that; None: never
    retention_error: str | None = None  # reason why merges or deletions wait, None if they do not
    standby: list[int] = field(default_factory=list)  # processes that continue after this one


def unstarted(database: str, url: str) -> ReplicationStatus:
    """The status of a replicator that was never started."""
    return ReplicationStatus(
        running=False,
        healthy=False,
        state="stopped",
        database=database,
        url=url,
        generation="",
        txid=0,
        durable_txid=0,
        pending_segments=0,
        pending_bytes=0,
        lag_seconds=0.0,
        lag_bytes=0,
        wal_frame_count=0,
        last_wal_sync=None,
        last_snapshot=None,
        last_snapshot_txid=None,
        failed_uploads=0,
        uploaded_bytes=0,
        uploaded_objects=0,
        roll_overs=0,
        write_lock_holds=0,
        longest_write_lock_ms=0.0,
        last_error=None,
        last_error_at=None,
    )


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """The result of a restore, and its proof."""

    output: str
    url: str
    generation: str
    txid: int
    committed_at: int | None  # commit time of ``txid``, ms; None for a generation's start
    pages: int
    page_size: int
    size: int
    checksum: int  # of the database, equal to the archive's at ``txid``
    snapshot_txid: int
    objects: int
    downloaded_bytes: int
    seconds: float
    verified: str  # the proof, in words
    lost_txids: int = 0  # with --allow-older: transactions that could not be restored
    avoided: tuple[str, ...] = ()  # keys of damaged objects that other objects replaced
    inconclusive: tuple[str, ...] = ()  # why SQLite's own check could not be made in full
    unauthenticated: bool = False  # the archive is sealed, and its integrity key was not given
