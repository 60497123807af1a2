"""The bytes around an object's payload: header frame, trailer frame, seek table.

All three are zstd skippable frames, which stock tools ignore. Each has its own checksum; a
single wrong bit raises ``DamageError``, which names the object. Integers are little-endian.
docs/format.md describes every byte. Owns these bytes; refuses the payload, and any I/O.
Source: RFC 8878, "Skippable Frames"; "Zstandard Seekable Format" 0.1.1.
"""

from __future__ import annotations

import contextlib
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NoReturn

from xxhash import xxh64_intdigest

from replicator.errors import DamageError, NewerFormat
from replicator.format import zstd
from replicator.format.buffers import Buffer
from replicator.format.integrity import Integrity, seal_length
from replicator.format.limits import DEFAULT_FORMAT_LIMITS
from replicator.format.object_header import (
    DIGESTS,
    FORMAT_VERSION,
    BlockDigests,
    ObjectHeader,
    Trailer,
    format_version,
    known_version,
)
from replicator.format.seek_table import SeekTable, parse_seek_table, seek_table_length
from replicator.format.transaction_index import IndexClaims, encode_index, parse_index
from replicator.format.wal import valid_page_size
from replicator.model import Kind

HEADER_LIMIT = 256  # no header frame is longer, bytes
TAIL_LIMIT = 64 * 1024  # bytes of the first request for the end of an object

_HEADER_NIBBLE, _TRAILER_NIBBLE = 0xA, 0xB
_HEADER = struct.Struct("<4sBBH16s16sQQII")
_TRAILER = struct.Struct("<4sBBHQIIIIQQQQQ32s")
_END = struct.Struct("<QI4s")  # XXH64 of the frame so far, length of the frame, end magic
_SUM = struct.Struct("<Q")
_HEADER_MAGIC, _TRAILER_MAGIC, _END_MAGIC = b"RPLH", b"RPLT", b"RPLE"
_CREATED_BY_LIMIT = 64


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of an object. ``trailer_offset`` is the offset of the trailer frame. ``seek``
    lists the blocks of a snapshot in order; None for any other kind. ``sealed``: a seal follows,
    see :mod:`.integrity`."""

    kind: Kind
    trailer: Trailer
    trailer_offset: int
    seek: SeekTable | None
    sealed: bool = False

    @property
    def nbytes(self) -> int:
        """Memory of it, about."""
        trailer, seek = self.trailer, self.seek
        digests = DIGESTS * len(trailer.blocks) if trailer.blocks is not None else 0
        index = 4 * len(trailer.commit_frames) + 8 * len(trailer.commit_times_ms)
        return 1024 + digests + index + (seek.nbytes if seek is not None else 0)


def damaged(key: str, reason: str, code: str = "") -> DamageError:
    """The error for the object ``key``; docs/exit-codes.md lists the codes."""
    return DamageError(f"{key}: {reason}", key=key, code=code)


@contextlib.contextmanager
def naming(key: str) -> Iterator[None]:
    """Add the key to damage errors raised inside."""
    try:
        yield
    except DamageError as error:
        if error.key:
            raise
        raise damaged(key, str(error), error.code) from error


def discontinuous(key: str, older: str) -> DamageError:
    """The error for an object whose checksum before it differs from the one that ``older`` ends
    with."""
    reason = f"it does not continue {older}: the database checksums differ"
    return damaged(key, reason, code="discontinuous")


def encode_header(header: ObjectHeader) -> bytes:
    created_by = header.created_by.encode()[:_CREATED_BY_LIMIT]
    content = (
        _HEADER.pack(
            _HEADER_MAGIC,
            format_version(header.kind),
            header.kind,
            0,
            uuid.UUID(header.generation).bytes,
            uuid.UUID(header.writer).bytes,
            header.first_txid,
            header.created_ms,
            header.page_size,
            len(created_by),
        )
        + created_by
    )
    return _sealed(_HEADER_NIBBLE, content, b"")


def _sealed(nibble: int, content: bytes, end: bytes) -> bytes:
    """A skippable frame: ``content``, the XXH64 of all bytes so far, then ``end``."""
    frame = zstd.skippable_frame(nibble, content + bytes(_SUM.size) + end)
    at = len(frame) - len(end) - _SUM.size
    return frame[:at] + _SUM.pack(xxh64_intdigest(frame[:at])) + end


def read_header(data: Buffer, key: str) -> tuple[ObjectHeader, int]:
    """The header of an object, and the offset of its data. ``data`` are the first HEADER_LIMIT
    bytes, or the whole object."""
    length = zstd.parse_skippable(data, _HEADER_NIBBLE)
    if length is None:
        raise damaged(key, "it does not begin with a replicator's header", code="not_an_object")
    if not _HEADER.size + 16 <= length <= min(len(data), HEADER_LIMIT):
        raise damaged(key, "its header has an impossible length", code="contradiction")
    frame = bytes(data[:length])
    _check_sum(frame[: -_SUM.size], frame[-_SUM.size :], key, "header")
    return _parse_header(frame[zstd.SKIPPABLE_HEADER_SIZE : -_SUM.size], key), length


def _check_sum(covered: Buffer, stored: Buffer, key: str, part: str) -> None:
    if xxh64_intdigest(covered) != _SUM.unpack(stored)[0]:
        raise damaged(key, f"the checksum of its {part} does not match", code="checksum_mismatch")


def _parse_header(content: bytes, key: str) -> ObjectHeader:
    magic, version, kind, _, generation, writer, first_txid, created_ms, page_size, length = (
        _HEADER.unpack_from(content)
    )
    _check_format(magic == _HEADER_MAGIC, version, kind, key)
    created_by = content[_HEADER.size :]
    if len(created_by) != length or not valid_page_size(page_size):
        raise damaged(key, "its header contradicts itself", code="contradiction")
    _require_possible(first_txid, created_ms, key)
    return ObjectHeader(
        Kind(kind),
        str(uuid.UUID(bytes=generation)),
        first_txid,
        page_size,
        str(uuid.UUID(bytes=writer)),
        created_ms,
        created_by.decode(errors="replace"),
    )


def _check_format(ours: bool, version: int, kind: int, key: str) -> None:
    if not ours:
        raise damaged(key, "it was not written by a replicator", code="not_an_object")
    if kind not in set(Kind) or not known_version(version, Kind(kind)):
        _newer(key, version)


def _require_possible(txid: int, ms: int, key: str) -> None:
    limits = DEFAULT_FORMAT_LIMITS
    if txid > limits.last_txid or ms > limits.last_ms:
        raise damaged(
            key, f"no archive reaches transaction {txid} at {ms} ms", code="beyond_limits"
        )


def _newer(key: str, version: int) -> NoReturn:
    raise NewerFormat(f"{key}: a newer replicator wrote it (format {version})", key=key)


def encode_trailer(kind: Kind, trailer: Trailer) -> bytes:
    index = (
        encode_index(trailer.commit_frames, trailer.commit_times_ms)
        if trailer.blocks is None
        else encode_digests(trailer.blocks)
    )
    version = FORMAT_VERSION if trailer.blocks is None else format_version(kind)
    first = trailer.first_commit_ms or 0
    content = (
        _TRAILER.pack(
            _TRAILER_MAGIC,
            version,
            kind,
            0,
            trailer.last_txid,
            trailer.pages,
            len(trailer.commit_frames),
            len(trailer.commit_times_ms),
            len(index),
            trailer.checksum_before,
            trailer.checksum_after,
            trailer.payload_bytes,
            trailer.seek_xxh64,
            first,
            trailer.data_sha256,
        )
        + index
    )
    length = zstd.SKIPPABLE_HEADER_SIZE + len(content) + _END.size
    end = _END.pack(0, length, _END_MAGIC)[_SUM.size :]
    return _sealed(_TRAILER_NIBBLE, content, end)


def encode_digests(digests: BlockDigests) -> bytes:
    """The index of a snapshot. Digests do not compress."""
    return _SUM.pack(digests.sent_ms) + digests.packed


def read_tail(tail: Buffer, size: int, key: str, integrity: Integrity | None = None) -> Tail | int:
    """The trailer (and seek table) from the last bytes of an object of ``size`` bytes.

    ``tail`` is the whole object or at least its last TAIL_LIMIT bytes. If these do not contain
    all of it, returns the number of bytes that do. With ``integrity``, the object must be sealed.
    """
    sealed = seal_length(tail)
    tail, seal = memoryview(tail)[: len(tail) - sealed], bytes(tail[len(tail) - sealed :])
    size -= sealed
    with naming(key):
        seek_length = seek_table_length(tail)
    needed = _checked(seek_length + _END.size, size, key)
    if needed > len(tail):
        return needed + sealed
    end = len(tail) - seek_length
    _, length, magic = _END.unpack(tail[end - _END.size : end])
    if magic != _END_MAGIC:
        raise damaged(key, "it does not end with a replicator's trailer", code="not_an_object")
    needed = _checked(seek_length + length, size, key)
    if needed > len(tail):
        return needed + sealed
    frame, seek = tail[end - length : end], tail[end:]
    found = _parse_tail(frame, seek, size, key)
    if integrity is not None:
        integrity.check(seal or None, frame, seek, key)
    return replace(found, sealed=bool(seal))


def _checked(needed: int, size: int, key: str) -> int:
    if needed > min(size, DEFAULT_FORMAT_LIMITS.tail):
        raise damaged(key, "it is shorter than its trailer and seek table", code="truncated")
    return needed


def _parse_tail(frame: memoryview, seek: memoryview, size: int, key: str) -> Tail:
    if zstd.parse_skippable(frame, _TRAILER_NIBBLE) != len(frame) or (
        len(frame) < zstd.SKIPPABLE_HEADER_SIZE + _TRAILER.size + _END.size
    ):
        raise damaged(key, "its trailer has an impossible length", code="contradiction")
    at = len(frame) - _END.size
    _check_sum(frame[:at], frame[at : at + _SUM.size], key, "trailer")
    offset = size - len(seek) - len(frame)
    with naming(key):
        kind, trailer = _parse_trailer(frame[zstd.SKIPPABLE_HEADER_SIZE : at], offset, key)
    if trailer.seek_xxh64 != (xxh64_intdigest(seek) if seek else 0):
        raise damaged(
            key, "the checksum of its seek table does not match", code="checksum_mismatch"
        )
    with naming(key):
        entries = parse_seek_table(seek, size) if seek else None
    if trailer.blocks is not None and len(trailer.blocks) != len(entries or ()):
        raise damaged(
            key, "its trailer does not list the blocks of its seek table", code="contradiction"
        )
    return Tail(kind, trailer, offset, entries)


def _parse_trailer(content: memoryview, data_bytes: int, key: str) -> tuple[Kind, Trailer]:
    (
        magic,
        version,
        kind,
        _,
        last_txid,
        pages,
        commits,
        times,
        index_size,
        before,
        after,
        payload_bytes,
        seek_xxh64,
        first_ms,
        data_sha256,
    ) = _TRAILER.unpack_from(content)
    _check_format(magic == _TRAILER_MAGIC, version, kind, key)
    index = content[_TRAILER.size :]
    if len(index) != index_size:
        raise damaged(key, "its trailer contradicts itself", code="contradiction")
    _require_possible(last_txid, first_ms, key)
    digests = _parse_digests(index, key) if version > FORMAT_VERSION else None
    frames, commit_times = parse_index(
        index if digests is None else b"", IndexClaims(commits, times, first_ms), data_bytes
    )
    return Kind(kind), Trailer(
        last_txid,
        pages,
        before,
        after,
        payload_bytes,
        data_sha256,
        seek_xxh64,
        frames,
        commit_times,
        digests,
    )


def _parse_digests(index: memoryview, key: str) -> BlockDigests:
    if len(index) % DIGESTS != _SUM.size:
        raise damaged(key, "its trailer contradicts itself", code="contradiction")
    return BlockDigests(_SUM.unpack_from(index)[0], bytes(index[_SUM.size :]))
