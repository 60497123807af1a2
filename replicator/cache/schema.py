"""The tables of the ledger, format 2, and the rows of its values.

Owns: the SQL of the tables, and the check that every row carries over its own values: it
detects a flipped bit that SQLite does not notice. Refuses: to run a statement.

    segment            one row a segment, the same for every destination
    delivery           the progress of one segment at one destination, keyed by both
    destination        the destinations, each with the first txid that it is owed
    destination_fact   single values about one destination (its claim, its newest snapshot …)
    fact               single values about the cache itself
    change             the changes of the page hashes by each segment

Rules for more than one destination. Today there is one, ``primary``; the tables serve more.

- Every segment has one row in ``delivery`` for each destination that is owed its first txid.
  The ledger is damaged when one is missing: a missing row must not look like an acknowledgement.
- A destination that is added later begins at the marker of a new generation, which is the first
  txid that it is owed. The snapshot of that generation contains
  everything older.
- The watermark of a destination is computed from its own rows: the newest acknowledged segment
  with no waiting one before it. It is never stored. Its claim is a fact of its own.
- A multipart upload belongs to a destination, so upload id and part size are in ``delivery``.
- A squash replaces only segments that were offered to no destination: a destination may hold the
  bytes of every segment that it was offered.
- A merge is made in each archive on its own, so the status *merged* is in ``delivery`` too.
- A file is trimmed, and a row is removed, only when every destination acknowledged the segment.
- ``segment.key`` is the object's key at the primary destination. Another destination derives
  its own from its prefix and the txid.

The table ``fact`` and its row ``format`` are the same in every format, past and future, so that
every version recognises the ledger of every other one; see :mod:`.migration`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, TypeAlias

from replicator.cache.records import Delivery, SegmentRecord, Status
from replicator.model import DatabaseState, Kind, WalPosition

Row: TypeAlias = tuple[Any, ...]

FORMAT = 2
SEGMENT_COLUMNS = (
    "first_txid",
    "last_txid",
    "generation",
    "kind",
    "key",
    "size",
    "raw_bytes",
    "sha256",
    "log_end",
    "pages",
    "checksum",
    "checksum_before",
    "first_commit_ms",
    "commit_ms",
    "created_ms",
    "metadata",
    "stored",
)
DELIVERY_COLUMNS = (
    "first_txid",
    "destination",
    "status",
    "attempts",
    "next_attempt_ms",
    "last_error",
    "upload_id",
    "part_size",
    "uploaded_ms",
)
FACT_TABLE = "CREATE TABLE fact (name PRIMARY KEY, value, check_sum) WITHOUT ROWID"
CHANGE_TABLE = "CREATE TABLE change (last_txid INTEGER PRIMARY KEY, entries, check_sum)"
# The tables that format 2 added or changed.
SEGMENT_TABLES = (
    "CREATE TABLE segment "
    f"(first_txid INTEGER PRIMARY KEY, {', '.join(SEGMENT_COLUMNS[1:])}, check_sum)",
    "CREATE INDEX kept ON segment (stored, size)",
    # Without its type, SQLite cannot find a delivery by the txid of a segment: 4096 segments
    # took 0.85 s to read instead of 0.03 s.
    "CREATE TABLE delivery "
    f"(first_txid INTEGER, {', '.join(DELIVERY_COLUMNS[1:])}, check_sum, "
    "PRIMARY KEY (first_txid, destination)) WITHOUT ROWID",
    "CREATE INDEX waiting ON delivery (first_txid, destination, status) WHERE status < 3",
    "CREATE TABLE destination (name PRIMARY KEY, first_txid, check_sum) WITHOUT ROWID",
    "CREATE TABLE destination_fact (destination, name, value, check_sum, "
    "PRIMARY KEY (destination, name)) WITHOUT ROWID",
)
TABLES = (FACT_TABLE, CHANGE_TABLE, *SEGMENT_TABLES)


def insert(table: str, columns: int) -> str:
    """The statement that inserts or replaces one row of ``columns`` values and its check."""
    places = ", ".join("?" * (columns + 1))
    return f"INSERT OR REPLACE INTO {table} VALUES ({places})"  # noqa: S608 - constants only


def check_sum(values: Row) -> str:
    """64 bits over the values of a row, as hex."""
    return hashlib.blake2b(repr(values).encode(), digest_size=8).hexdigest()


def segment_row(record: SegmentRecord) -> Row:
    """The values in the order of ``SEGMENT_COLUMNS``. 64-bit checksums are hex: SQLite's
    integers are signed."""
    end = record.end
    log_end = [end.salt1, end.salt2, end.frame, *end.checksum, end.big_endian, end.page_size]
    return (
        record.first_txid,
        record.last_txid,
        record.generation,
        int(record.kind),
        record.key,
        record.size,
        record.raw_bytes,
        record.sha256,
        json.dumps(log_end),
        record.state.pages,
        f"{record.state.checksum:016x}",
        f"{record.checksum_before:016x}",
        record.first_commit_ms,
        record.commit_ms,
        record.created_ms,
        json.dumps(record.metadata),
        int(record.stored),
    )


def delivery_row(first_txid: int, delivery: Delivery) -> Row:
    """The values in the order of ``DELIVERY_COLUMNS``."""
    return (
        first_txid,
        delivery.destination,
        int(delivery.status),
        delivery.attempts,
        delivery.next_attempt_ms,
        delivery.last_error,
        delivery.upload_id,
        delivery.part_size,
        delivery.uploaded_ms,
    )


def delivery_of(row: Sequence[Any]) -> Delivery:
    """The inverse of :func:`delivery_row`."""
    destination, status, *rest = row[1:]
    return Delivery(destination, Status(status), *rest)


def record_of(row: Sequence[Any], delivery: Delivery) -> SegmentRecord:
    """The inverse of :func:`segment_row`, for a row whose check is right."""
    values = dict(zip(SEGMENT_COLUMNS, row, strict=True))
    salt1, salt2, frame, first, second, big_endian, page_size = json.loads(values.pop("log_end"))
    state = DatabaseState(values.pop("pages"), int(values.pop("checksum"), 16))
    changed = {
        "end": WalPosition(salt1, salt2, frame, (first, second), big_endian, page_size),
        "state": state,
        "checksum_before": int(values["checksum_before"], 16),
        "kind": Kind(values["kind"]),
        "stored": bool(values["stored"]),
        "metadata": json.loads(values["metadata"]),
        "delivery": delivery,
    }
    return SegmentRecord(**values | changed)
