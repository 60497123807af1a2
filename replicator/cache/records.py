"""The values of the ledger: a segment, its delivery to one destination, and the named facts.

Owns: the shape of these values. Refuses: SQL, files and decisions.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from replicator.model import DatabaseState, Kind, WalPosition

# The name of the only destination today. It is a name, not an address: the address may change.
PRIMARY = "primary"


class Status(enum.IntEnum):
    """The progress of a segment at one destination. The ledger stores the numbers and relies on
    their order."""

    PENDING = 1  # no attempt runs; the destination has not acknowledged it
    UPLOADING = 2  # an attempt runs
    UPLOADED = 3  # the destination acknowledged it
    MERGED = 4  # and a merge at the destination covers it too


class Fact(enum.StrEnum):
    """The names of single values in the ledger. The text of a value belongs to its writer."""

    WRITER = "writer"  # the id of this cache in every object that it produces
    DATABASE = "database"  # device and inode of the database file
    BIRTH = "birth"  # when the database file was made, "" if unknown
    COUNTERS = "counters"  # of its header: changes and changes of the schema, as captured
    CLAIM = "claim"  # the txid at which this cache took the archive over from another writer
    STORE_CHECK = "store"  # which store passed the check of conditional PUTs
    SEALED = "sealed"  # which archive ends with a sealed object, or with one that is not
    SNAPSHOT = "snapshot"  # the newest snapshot that was published
    SNAPSHOT_UPLOAD = "snapshot upload"  # the unfinished multipart upload of a snapshot

    @property
    def per_destination(self) -> bool:
        """True for a fact about one destination, False for a fact about the cache itself."""
        return self not in (Fact.WRITER, Fact.DATABASE, Fact.BIRTH, Fact.COUNTERS)


@dataclass(frozen=True, slots=True)
class Delivery:
    """The progress of one segment at one destination. Times are ms since the epoch."""

    destination: str = PRIMARY
    status: Status = Status.PENDING
    attempts: int = 0
    next_attempt_ms: int = 0
    last_error: str | None = None
    upload_id: str | None = None  # of the multipart upload to resume
    part_size: int = 0
    uploaded_ms: int | None = None

    @property
    def acknowledged(self) -> bool:
        return self.status >= Status.UPLOADED


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """One segment, with its ``delivery`` to the destination that it was read for.

    Times are ms since the epoch, sizes are bytes.
    """

    first_txid: int
    last_txid: int
    generation: str
    kind: Kind
    key: str  # at a destination with another prefix, that prefix replaces this one
    size: int
    raw_bytes: int  # decompressed
    sha256: str  # hex, of the whole object
    end: WalPosition  # in the local WAL
    state: DatabaseState  # after last_txid
    checksum_before: int
    first_commit_ms: int
    commit_ms: int  # of the last transaction
    created_ms: int
    metadata: dict[str, str] = field(default_factory=dict)  # of the object in the store
    stored: bool = True  # its file is in the cache
    delivery: Delivery = Delivery()

    @property
    def file_name(self) -> str:
        """Contains the digest too, so that a segment that replaces others overwrites no file."""
        return f"{self.first_txid:016x}-{self.sha256[:12]}.wal.zst"

    @property
    def acknowledged(self) -> bool:
        return self.delivery.acknowledged
