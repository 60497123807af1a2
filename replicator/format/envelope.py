"""The bytes around an object's payload: header frame, trailer frame, seek table.

All three are zstd skippable frames, which stock tools ignore. Each has its own checksum; a
single wrong bit raises ``DamageError``, which names the object. Integers are little-endian.
docs/format.md describes every byte. Owns these bytes; refuses the payload, and any I/O.
Source: RFC 8878, "Skippable Frames"; "Zstandard Seekable Format" 0.1.1.
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass
from itertools import accumulate
from typing import NoReturn, TypeVar

import numpy as np
from xxhash import xxh64_intdigest

from replicator.errors import DamageError
from replicator.format import zstd
from replicator.format.buffers import Buffer
from replicator.format.object_header import (
    DIGESTS,
    FORMAT_VERSION,
    BlockDigests,
    ObjectHeader,
    Trailer,
    format_version,
    known_version,
)
from replicator.format.wal import valid_page_size
from replicator.model import Kind

HEADER_LIMIT = 256  # no header frame is longer, bytes
TAIL_LIMIT = 64 * 1024  # bytes of the first request for the end of an object
MAX_TAIL = 256 * 1024 * 1024  # a longer tail is damage: it would describe 3.5 TiB of database

_HEADER_NIBBLE, _TRAILER_NIBBLE, _SEEK_NIBBLE = 0xA, 0xB, 0xE
_HEADER = struct.Struct("<4sBBH16s16sQQII")
_TRAILER = struct.Struct("<4sBBHQIIIIQQQQQ32s")
_END = struct.Struct("<QI4s")  # XXH64 of the frame so far, length of the frame, end magic
_SUM = struct.Struct("<Q")
_FOOTER = struct.Struct("<IBI")
_HEADER_MAGIC, _TRAILER_MAGIC, _END_MAGIC = b"RPLH", b"RPLT", b"RPLE"
_SEEK_MAGIC = 0x8F92EAB1
_SEEK_ENTRY = 8
_CREATED_BY_LIMIT = 64

Number = TypeVar("Number", np.uint32, np.uint64)


@dataclass(frozen=True, slots=True)
class SeekEntry:
    """One block of a snapshot, in bytes: ``offset`` and ``compressed`` size in the object,
    ``raw_offset`` and ``raw`` size in the database."""

    offset: int
    compressed: int
    raw_offset: int
    raw: int


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of an object. ``trailer_offset`` is the offset of the trailer frame. ``seek``
    lists the blocks of a snapshot in order; None for any other kind."""

    kind: Kind
    trailer: Trailer
    trailer_offset: int
    seek: tuple[SeekEntry, ...] | None


def damaged(key: str, reason: str, code: str = "") -> DamageError:
    """The error for the object ``key``; docs/exit-codes.md lists the codes."""
    return DamageError(f"{key}: {reason}", key=key, code=code)


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


def _newer(key: str, version: int) -> NoReturn:
    raise DamageError(
        f"{key}: a newer replicator wrote it (format {version})",
        key=key,
        code="newer_format",
        hint="upgrade this replicator, then try again",
    )


def encode_trailer(kind: Kind, trailer: Trailer) -> bytes:
    index = _encode_index(trailer) if trailer.blocks is None else encode_digests(trailer.blocks)
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


def _encode_index(trailer: Trailer) -> bytes:
    """Frames and time steps as planes of their bytes, compressed: 0.8 bytes a transaction."""
    frames = np.array(trailer.commit_frames, np.uint32)
    steps = np.diff(np.array(trailer.commit_times_ms, np.int64))
    if (steps < 0).any():
        raise ValueError("commit times decrease")
    planes = _planes(frames) + _planes(steps.astype(np.uint64))
    return zstd.compress_frame(planes, 3) if planes else b""


def encode_digests(digests: BlockDigests) -> bytes:
    """The index of a snapshot. Digests do not compress."""
    return _SUM.pack(digests.sent_ms) + digests.packed


def _planes(numbers: np.ndarray[tuple[int], np.dtype[Number]]) -> bytes:
    little = numbers.astype(numbers.dtype.newbyteorder("<"))
    return little.view(np.uint8).reshape(-1, numbers.itemsize).T.tobytes()


def _from_planes(planes: bytes, kind: type[Number]) -> list[int]:
    width = np.dtype(kind).itemsize
    rows = np.frombuffer(planes, np.uint8).reshape(width, -1).T
    return np.ascontiguousarray(rows).view(np.dtype(kind).newbyteorder("<")).ravel().tolist()


def read_tail(tail: Buffer, size: int, key: str) -> Tail | int:
    """The trailer (and seek table) from the last bytes of an object of ``size`` bytes.

    ``tail`` is the whole object or at least its last TAIL_LIMIT bytes. If these do not contain
    all of it, returns the number of bytes that do.
    """
    tail = memoryview(tail)
    seek_length = _seek_length(tail)
    needed = _checked(seek_length + _END.size, size, key)
    if needed > len(tail):
        return needed
    end = len(tail) - seek_length
    _, length, magic = _END.unpack(tail[end - _END.size : end])
    if magic != _END_MAGIC:
        raise damaged(key, "it does not end with a replicator's trailer", code="not_an_object")
    needed = _checked(seek_length + length, size, key)
    if needed > len(tail):
        return needed
    return _parse_tail(tail[end - length : end], tail[end:], size, key)


def _checked(needed: int, size: int, key: str) -> int:
    if needed > min(size, MAX_TAIL):
        raise damaged(key, "it is shorter than its trailer and seek table", code="truncated")
    return needed


def _seek_length(tail: memoryview) -> int:
    """Bytes of the seek table at the end, 0 if there is none."""
    if len(tail) < _FOOTER.size:
        return 0
    count, _, magic = _FOOTER.unpack(tail[-_FOOTER.size :])
    if magic != _SEEK_MAGIC:
        return 0
    return int(zstd.SKIPPABLE_HEADER_SIZE + count * _SEEK_ENTRY + _FOOTER.size)


def _parse_tail(frame: memoryview, seek: memoryview, size: int, key: str) -> Tail:
    if zstd.parse_skippable(frame, _TRAILER_NIBBLE) != len(frame) or (
        len(frame) < zstd.SKIPPABLE_HEADER_SIZE + _TRAILER.size + _END.size
    ):
        raise damaged(key, "its trailer has an impossible length", code="contradiction")
    at = len(frame) - _END.size
    _check_sum(frame[:at], frame[at : at + _SUM.size], key, "trailer")
    kind, trailer = _parse_trailer(bytes(frame[zstd.SKIPPABLE_HEADER_SIZE : at]), key)
    offset = size - len(seek) - len(frame)
    if trailer.seek_xxh64 != (xxh64_intdigest(seek) if seek else 0):
        raise damaged(
            key, "the checksum of its seek table does not match", code="checksum_mismatch"
        )
    entries = _parse_seek_table(seek, size, key) if seek else None
    if trailer.blocks is not None and len(trailer.blocks) != len(entries or ()):
        raise damaged(
            key, "its trailer does not list the blocks of its seek table", code="contradiction"
        )
    return Tail(kind, trailer, offset, entries)


def _parse_trailer(content: bytes, key: str) -> tuple[Kind, Trailer]:
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
    digests = _parse_digests(index, key) if version > FORMAT_VERSION else None
    frames, commit_times = _parse_index(
        index if digests is None else b"", commits, times, first_ms, key
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


def _parse_digests(index: bytes, key: str) -> BlockDigests:
    if len(index) % DIGESTS != _SUM.size:
        raise damaged(key, "its trailer contradicts itself", code="contradiction")
    return BlockDigests(_SUM.unpack_from(index)[0], index[_SUM.size :])


def _parse_index(
    index: bytes, commits: int, times: int, first_ms: int, key: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    split, size = 4 * commits, 4 * commits + 8 * max(0, times - 1)
    try:
        planes = zstd.decompress_frame(index, size) if index else b""
    except DamageError as error:
        raise damaged(key, str(error), error.code) from error
    if len(planes) != size:
        raise damaged(key, "its index of transactions has a wrong length", code="contradiction")
    steps = _from_planes(planes[split:], np.uint64)
    frames = _from_planes(planes[:split], np.uint32)
    return tuple(frames), tuple(accumulate(steps, initial=first_ms)) if times else ()


def encode_seek_table(sizes: list[tuple[int, int]]) -> bytes:
    """The seek table for zstd frames of (compressed, raw) bytes; raw is 0 for a skippable one."""
    entries = np.array(sizes, "<u4").tobytes()
    return zstd.skippable_frame(_SEEK_NIBBLE, entries + _FOOTER.pack(len(sizes), 0, _SEEK_MAGIC))


def _parse_seek_table(seek: memoryview, size: int, key: str) -> tuple[SeekEntry, ...]:
    entries, offset, raw_offset = [], 0, 0
    start, stop = zstd.SKIPPABLE_HEADER_SIZE, len(seek) - _FOOTER.size
    for compressed, raw in struct.iter_unpack("<II", seek[start:stop]):
        if raw:
            entries.append(SeekEntry(offset, compressed, raw_offset, raw))
        offset, raw_offset = offset + compressed, raw_offset + raw
    if offset + len(seek) != size:
        raise damaged(key, "its length does not match its seek table", code="contradiction")
    return tuple(entries)
