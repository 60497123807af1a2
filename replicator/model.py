"""The values that pass between the stages: frozen, without behaviour, without I/O.

Times are milliseconds since the epoch (UTC) unless a name says otherwise; sizes are bytes.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Kind(enum.IntEnum):
    """What an object holds."""

    SNAPSHOT = 1  # the whole database after a txid
    SEGMENT = 2  # the transactions first … last, as a WAL file
    GENERATION = 3  # a generation begins at this txid with the snapshot of the same txid
    CATCH_UP = 4  # one transaction made of the pages that differ after a gap
    MERGE = 5  # several segments as one; every transaction kept
    MERGE_NEWEST = 6  # several segments as one; only the newest image of each page kept


@dataclass(frozen=True, slots=True)
class WalPosition:
    """A place in one log file: right after ``frame`` frames (0: right after the header).

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
    """What the database is after a transaction: enough to prove equality.

    ``checksum`` is the XOR over all pages of the 64-bit page hash.
    """

    pages: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the replicated log: the state after ``txid`` in ``generation``."""

    generation: str
    txid: int


@dataclass(frozen=True, slots=True)
class Repair:
    """How the present was made restorable again. ``txid`` is the transaction that was proved,
    ``action`` one of none, snapshot, generation."""

    txid: int
    action: str
    reason: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What stays of the past. Spans are seconds back from now; 0 is off, infinity for ever.

    Every transaction for a while, then the last state of each hour, day, week and month (UTC).
    ``snapshots`` is how many of the newest snapshots stay, however old they are.
    """

    every_transaction: float = 7 * 86400.0
    hourly: float = 30 * 86400.0
    daily: float = 90 * 86400.0
    weekly: float = 0.0
    monthly: float = 0.0
    snapshots: int = 2


@dataclass(frozen=True, slots=True)
class ReplicationStatus:
    """A live picture of one replicator; every field moves.

    "healthy" means the durable position equals the source position, or did within
    ``health_window`` seconds.
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
    lag_seconds: float  # age of the oldest commit that is not durable, 0 when all are
    lag_bytes: int  # bytes of committed log that are not durable
    wal_frame_count: int  # frames in the log file now
    last_wal_sync: int | None  # when a segment was last acknowledged
    last_snapshot: int | None  # when a snapshot was last acknowledged
    last_snapshot_txid: int | None
    failed_uploads: int
    uploaded_bytes: int
    uploaded_objects: int
    roll_overs: int
    write_lock_holds: int
    longest_write_lock_ms: float
    last_error: str | None
    last_error_at: int | None
    last_proven_txid: int | None = None  # newest transaction that a drill restored …
    last_proven_ms: int | None = None  # … and when; None: never
    past_trouble: str | None = None  # why merges or deletions wait, None while they do not


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What a restore did, and the proof it rests on."""

    output: str
    url: str
    generation: str
    txid: int
    committed_at: int | None  # commit time of ``txid``, ms; None for a generation's start
    pages: int
    page_size: int
    size: int
    checksum: int  # database checksum, equal to the log's at ``txid``
    snapshot_txid: int
    objects: int
    downloaded_bytes: int
    seconds: float
    verified: str  # what was proved, in words
    lost_txids: int = 0  # with --allow-older: transactions that could not be restored
    avoided: tuple[str, ...] = ()  # keys of damaged objects that others stood in for
