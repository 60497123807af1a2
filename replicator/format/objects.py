"""What an object says about itself, as values.

Owns the facts in the header, the trailer and the store's metadata of an object, not their bytes
(see :mod:`.envelope`) and not its payload (see :mod:`.segment`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from replicator.model import Kind

FORMAT_VERSION = 1  # of everything but snapshots
SNAPSHOT_VERSION = 2
DIGESTS = 64  # bytes a data frame: SHA-256 of the frame, SHA-256 of the pages in it

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
class FrameDigests:
    """What a snapshot tells of its data frames, so that each can be proved alone, and be
    recognised by the next snapshot. ``sent_ms``: no byte of the object left a replicator
    before that; later than the object's creation it cannot be. ``packed`` holds ``DIGESTS``
    bytes for each frame, in order."""

    sent_ms: int
    packed: bytes

    def __len__(self) -> int:
        return len(self.packed) // DIGESTS

    def frame(self, number: int) -> bytes:
        """SHA-256 of the bytes of data frame ``number``, from 0."""
        return self.packed[number * DIGESTS :][: DIGESTS // 2]

    def pages(self, number: int) -> bytes:
        """SHA-256 of the pages in it."""
        return self.packed[number * DIGESTS :][DIGESTS // 2 : DIGESTS]


@dataclass(frozen=True, slots=True)
class Trailer:
    """Known after the payload.

    ``data_sha256`` is the SHA-256 of every byte of the object before the trailer, or where it
    has ``frames``, of its header and these; ``payload_bytes`` counts what decompresses from it.
    ``seek_xxh64`` is the XXH64 of the seek table behind the trailer of a snapshot, else 0.
    ``commit_frames`` are the frames of each transaction, where the object keeps every one,
    else ``()``; ``commit_times_ms`` never decrease.
    """

    last_txid: int
    pages: int
    checksum_before: int
    checksum_after: int
    payload_bytes: int
    data_sha256: bytes
    seek_xxh64: int
    commit_frames: tuple[int, ...]
    commit_times_ms: tuple[int, ...]
    frames: FrameDigests | None = None  # of snapshots from version 2 on

    @property
    def first_commit_ms(self) -> int | None:
        return self.commit_times_ms[0] if self.commit_times_ms else None

    @property
    def last_commit_ms(self) -> int | None:
        return self.commit_times_ms[-1] if self.commit_times_ms else None


@dataclass(frozen=True, slots=True)
class Summary:
    """A finished object: ``size`` in bytes and ``sha256`` in hex are those of the whole. Who
    made a snapshot may never have seen all of it, and gives "" for the latter."""

    header: ObjectHeader
    trailer: Trailer
    size: int
    sha256: str

    def metadata(self) -> dict[str, str]:
        """The metadata the store keeps beside the object, for when a HEAD suffices."""
        header, trailer = self.header, self.trailer
        times = {"first-time": trailer.first_commit_ms, "last-time": trailer.last_commit_ms}
        return (
            {
                "format": str(FORMAT_VERSION if trailer.frames is None else SNAPSHOT_VERSION),
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
    """What :meth:`Summary.metadata` says. Times are None where the object has no commit."""

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


def format_version(kind: Kind) -> int:
    """The version that objects of a kind are written in."""
    return SNAPSHOT_VERSION if kind is Kind.SNAPSHOT else FORMAT_VERSION


def known_version(version: int, kind: Kind) -> bool:
    """Whether objects of a kind can be read in that version."""
    return FORMAT_VERSION <= version <= format_version(kind)


def parse_metadata(metadata: Mapping[str, str]) -> ObjectFacts | None:
    """None when the metadata is absent, incomplete or of a version of the format not known."""
    fields = {name.lower(): value for name, value in metadata.items()}
    try:
        facts = _facts(fields)
        return facts if known_version(int(fields["format"]), facts.kind) else None
    except (KeyError, ValueError):
        return None


def _facts(fields: Mapping[str, str]) -> ObjectFacts:
    def time(name: str) -> int | None:
        return int(fields[name]) if name in fields else None

    kind = Kind[fields["kind"].upper().replace("-", "_")]
    unsummed = kind is Kind.SNAPSHOT and "sha256" not in fields
    return ObjectFacts(
        kind=kind,
        generation=_matching(_UUID, fields["generation"]),
        first_txid=int(fields["first-txid"]),
        last_txid=int(fields["last-txid"]),
        page_size=int(fields["page-size"]),
        pages=int(fields["pages"]),
        checksum_before=int(fields["checksum-before"], 16),
        checksum_after=int(fields["checksum-after"], 16),
        created_ms=int(fields["created"]),
        first_commit_ms=time("first-time"),
        last_commit_ms=time("last-time"),
        sha256="" if unsummed else _matching(_SHA256, fields["sha256"]),
        writer=_matching(_UUID, fields["writer"]),
        last_event=int(fields.get("last-event", 0)),
    )


def _matching(pattern: re.Pattern[str], text: str) -> str:
    if not pattern.fullmatch(text):
        raise ValueError(text)
    return text
