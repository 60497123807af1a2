"""The facts in an object's header, in its trailer and in the store's metadata, as values.

Owns these facts and the metadata. Refuses their bytes (see :mod:`.envelope`) and the payload (see
:mod:`.segment` and :mod:`.snapshot_blocks`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from replicator.format.limits import DEFAULT_FORMAT_LIMITS
from replicator.model import Kind

FORMAT_VERSION = 1  # of everything but snapshots
SNAPSHOT_VERSION = 2
MAX_PAGE_SIZE = 65536
DIGESTS = 64  # bytes a block: SHA-256 of its compressed bytes, SHA-256 of its pages

_DECIMAL = re.compile("[0-9]{1,20}")
_HEX = re.compile("[0-9a-f]{1,16}")
_UUID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ObjectHeader:
    """Known before the payload. ``generation`` and ``writer`` are UUIDs as text;
    ``created_by`` names the program and its version (cut to 64 bytes)."""

    kind: Kind
    generation: str
    first_txid: int
    page_size: int
    writer: str
    created_ms: int
    created_by: str


@dataclass(frozen=True, slots=True)
class BlockDigests:
    """The digests of a snapshot's blocks. They prove each block alone, and let the next snapshot
    recognise it.

    ``sent_ms``: no byte of the object left a replicator before that time, which cannot be later
    than the object's creation. ``packed`` holds ``DIGESTS`` bytes for each block, in order.
    """

    sent_ms: int
    packed: bytes

    def __len__(self) -> int:
        return len(self.packed) // DIGESTS

    def block(self, number: int) -> bytes:
        """SHA-256 of the compressed bytes of block ``number``, from 0."""
        return self.packed[number * DIGESTS : number * DIGESTS + DIGESTS // 2]

    def pages(self, number: int) -> bytes:
        """SHA-256 of the pages in block ``number``."""
        return self.packed[number * DIGESTS + DIGESTS // 2 : (number + 1) * DIGESTS]


@dataclass(frozen=True, slots=True)
class Trailer:
    """Known after the payload.

    ``data_sha256`` is the SHA-256 of every byte of the object before the trailer; if there are
    ``blocks``, of the header and their digests. ``payload_bytes`` counts the decompressed bytes.
    ``seek_xxh64`` is the XXH64 of the seek table after the trailer of a snapshot, else 0.
    ``commit_frames`` are the frames of each transaction if the object keeps every transaction,
    else ``()``; ``commit_times_ms`` never decrease.
    """

    last_txid: int
    pages: int
    checksum_before: int
    checksum_after: int
    payload_bytes: int
    data_sha256: bytes
    seek_xxh64: int
    commit_frames: Sequence[int]
    commit_times_ms: Sequence[int]
    blocks: BlockDigests | None = None  # of snapshots from version 2 on

    @property
    def first_commit_ms(self) -> int | None:
        return self.commit_times_ms[0] if self.commit_times_ms else None

    @property
    def last_commit_ms(self) -> int | None:
        return self.commit_times_ms[-1] if self.commit_times_ms else None


@dataclass(frozen=True, slots=True)
class Summary:
    """A finished object. ``size`` (bytes) and ``sha256`` (hex) cover the whole object.

    ``sha256`` is "" for a snapshot whose encoder did not see all of its bytes.
    """

    header: ObjectHeader
    trailer: Trailer
    size: int
    sha256: str

    def metadata(self) -> dict[str, str]:
        """The metadata for the store, which a HEAD request returns."""
        header, trailer = self.header, self.trailer
        times = {"first-time": trailer.first_commit_ms, "last-time": trailer.last_commit_ms}
        return (
            {
                "format": str(FORMAT_VERSION if trailer.blocks is None else SNAPSHOT_VERSION),
                "kind": header.kind.name.lower().replace("_", "-"),
                "generation": header.generation,
                "first-txid": str(header.first_txid),
                "last-txid": str(trailer.last_txid),
                "page-size": str(header.page_size),
                "pages": str(trailer.pages),
                "checksum-before": f"{trailer.checksum_before:016x}",
                "checksum-after": f"{trailer.checksum_after:016x}",
                "created": str(header.created_ms),
                "writer": header.writer,
            }
            | ({"sha256": self.sha256} if self.sha256 else {})
            | {name: str(ms) for name, ms in times.items() if ms is not None}
        )


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """The content of :meth:`Summary.metadata`. Times are None for an object without a commit."""

    kind: Kind
    generation: str
    first_txid: int
    last_txid: int
    page_size: int
    pages: int
    checksum_before: int
    checksum_after: int
    created_ms: int
    first_commit_ms: int | None
    last_commit_ms: int | None
    sha256: str
    writer: str
    last_event: int = 0  # txid of the newest catch-up or marker before it; 0: not told
    indexed: bool = True  # False: its own bytes list no transactions; metadata cannot tell

    @property
    def first_ms(self) -> int:
        """When its first commit took place; an object without commits: when it was created."""
        return self.created_ms if self.first_commit_ms is None else self.first_commit_ms

    @property
    def last_ms(self) -> int:
        """The same of its last commit."""
        return self.created_ms if self.last_commit_ms is None else self.last_commit_ms

    @classmethod
    def of(cls, header: ObjectHeader, trailer: Trailer, sha256: str = "") -> ObjectFacts:
        """The same from the object's own header and trailer."""
        return cls(
            kind=header.kind,
            generation=header.generation,
            first_txid=header.first_txid,
            last_txid=trailer.last_txid,
            page_size=header.page_size,
            pages=trailer.pages,
            checksum_before=trailer.checksum_before,
            checksum_after=trailer.checksum_after,
            created_ms=header.created_ms,
            first_commit_ms=trailer.first_commit_ms,
            last_commit_ms=trailer.last_commit_ms,
            sha256=sha256,
            writer=header.writer,
            indexed=bool(trailer.commit_frames),
        )


def format_version(kind: Kind) -> int:
    """The format version of new objects of a kind."""
    return SNAPSHOT_VERSION if kind is Kind.SNAPSHOT else FORMAT_VERSION


def known_version(version: int, kind: Kind) -> bool:
    """True if this program can read objects of a kind in that version."""
    return FORMAT_VERSION <= version <= format_version(kind)


def parse_metadata(metadata: Mapping[str, str]) -> ObjectFacts | None:
    """The facts; None if the metadata is absent, incomplete, impossible, or of an unknown format
    version."""
    fields = {name.lower(): value for name, value in metadata.items()}
    try:
        facts = _facts(fields)
        return (
            facts if known_version(int(_matching(_DECIMAL, fields["format"])), facts.kind) else None
        )
    except (KeyError, ValueError):
        return None


def _facts(fields: Mapping[str, str]) -> ObjectFacts:
    limits = DEFAULT_FORMAT_LIMITS

    def number(name: str, most: int) -> int:
        value = int(_matching(_DECIMAL, fields[name]))
        if value > most:
            raise ValueError(name)
        return value

    def time(name: str) -> int | None:
        return number(name, limits.last_ms) if name in fields else None

    def checksum(name: str) -> int:
        return int(_matching(_HEX, fields[name]), 16)

    kind = Kind[fields["kind"].upper().replace("-", "_")]
    unsummed = kind is Kind.SNAPSHOT and "sha256" not in fields
    return ObjectFacts(
        kind=kind,
        generation=_matching(_UUID, fields["generation"]),
        first_txid=number("first-txid", limits.last_txid),
        last_txid=number("last-txid", limits.last_txid),
        page_size=number("page-size", MAX_PAGE_SIZE),
        pages=number("pages", limits.pages),
        checksum_before=checksum("checksum-before"),
        checksum_after=checksum("checksum-after"),
        created_ms=number("created", limits.last_ms),
        first_commit_ms=time("first-time"),
        last_commit_ms=time("last-time"),
        sha256="" if unsummed else _matching(_SHA256, fields["sha256"]),
        writer=_matching(_UUID, fields["writer"]),
        last_event=number("last-event", limits.last_txid) if "last-event" in fields else 0,
    )


def _matching(pattern: re.Pattern[str], text: str) -> str:
    if not pattern.fullmatch(text):
        raise ValueError(text)
    return text
