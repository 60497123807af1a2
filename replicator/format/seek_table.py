"""The seek table of a snapshot: where each of its blocks is.

Owns its bytes and the bounds of its entries. Refuses to know the rest of the object.
Source: "Zstandard Seekable Format" 0.1.1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from replicator.errors import DamageError
from replicator.format import zstd
from replicator.format.buffers import U32, U64, Buffer
from replicator.format.limits import DEFAULT_FORMAT_LIMITS, FormatLimits

_NIBBLE = 0xE
_FOOTER = struct.Struct("<IBI")
_MAGIC = 0x8F92EAB1
_ENTRY = 8
_STEP = 4096  # entries made at once by an iteration
_PARTS = 2  # entries of header and trailer, which hold no pages


@dataclass(frozen=True, slots=True)
class SeekEntry:
    """One block of a snapshot, in bytes: ``offset`` and ``compressed`` size in the object,
    ``raw_offset`` and ``raw`` size in the database."""

    offset: int
    compressed: int
    raw_offset: int
    raw: int


class SeekTable(Sequence[SeekEntry]):
    """The blocks of a snapshot in order. Takes 24 bytes a block."""

    __slots__ = ("_compressed", "_offsets", "_raw", "_raw_offsets")

    def __init__(self, offsets: U64, compressed: U32, raw_offsets: U64, raw: U32) -> None:
        self._offsets = offsets
        self._compressed = compressed
        self._raw_offsets = raw_offsets
        self._raw = raw

    def __len__(self) -> int:
        return len(self._raw)

    @overload
    def __getitem__(self, at: int) -> SeekEntry: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[SeekEntry, ...]: ...
    def __getitem__(self, at: int | slice) -> SeekEntry | tuple[SeekEntry, ...]:
        if isinstance(at, slice):
            return tuple(self[each] for each in range(*at.indices(len(self))))
        columns = self._offsets, self._compressed, self._raw_offsets, self._raw
        return SeekEntry(*(int(column[at]) for column in columns))

    def __iter__(self) -> Iterator[SeekEntry]:
        columns = self._offsets, self._compressed, self._raw_offsets, self._raw
        for at in range(0, len(self), _STEP):
            rows = (column[at : at + _STEP].tolist() for column in columns)
            for offset, compressed, raw_offset, raw in zip(*rows, strict=True):
                yield SeekEntry(offset, compressed, raw_offset, raw)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __hash__(self) -> int:
        return hash((len(self), self.compressed_bytes, self.raw_bytes))

    @property
    def compressed_bytes(self) -> int:
        return int(self._compressed.sum(dtype=np.uint64))

    @property
    def raw_bytes(self) -> int:
        return int(self._raw.sum(dtype=np.uint64))

    @property
    def largest(self) -> int:
        """Bytes of pages in the largest block."""
        return int(self._raw.max(initial=0))

    @property
    def nbytes(self) -> int:
        """Memory of the entries."""
        return 24 * len(self)

    def whole_pages(self, page_size: int) -> bool:
        """True if every block holds whole pages."""
        return not (self._raw % np.uint32(page_size)).any()


def encode_seek_table(sizes: list[tuple[int, int]]) -> bytes:
    """The seek table for zstd frames of (compressed, raw) bytes; raw is 0 for a skippable one."""
    entries = np.array(sizes, "<u4").tobytes()
    return zstd.skippable_frame(_NIBBLE, entries + _FOOTER.pack(len(sizes), 0, _MAGIC))


def seek_table_length(tail: Buffer, limits: FormatLimits = DEFAULT_FORMAT_LIMITS) -> int:
    """Bytes of the seek table at the end of ``tail``, 0 if there is none; ``DamageError``,
    without a key, if it claims too many entries."""
    if len(tail) < _FOOTER.size:
        return 0
    count, _, magic = _FOOTER.unpack(tail[-_FOOTER.size :])
    if magic != _MAGIC:
        return 0
    if count > limits.blocks + _PARTS:
        raise DamageError(
            f"its seek table claims {count} blocks, more than {limits.blocks}",
            code="beyond_limits",
        )
    return int(zstd.SKIPPABLE_HEADER_SIZE + count * _ENTRY + _FOOTER.size)


def parse_seek_table(
    seek: Buffer, size: int, limits: FormatLimits = DEFAULT_FORMAT_LIMITS
) -> SeekTable:
    """The blocks of an object of ``size`` bytes, which ends with the table ``seek``.
    ``DamageError``, without a key, if they cannot be in it."""
    start, stop = zstd.SKIPPABLE_HEADER_SIZE, len(seek) - _FOOTER.size
    columns = np.frombuffer(seek[start:stop], "<u4").reshape(-1, 2)
    sizes = columns.astype(np.uint32, copy=False)
    ends = sizes.cumsum(axis=0, dtype=np.uint64)
    whole = int(ends[-1, 0]) if len(ends) else 0
    if whole + len(seek) != size:
        raise DamageError("its length does not match its seek table", code="contradiction")
    blocks = np.flatnonzero(sizes[:, 1])
    compressed, raw = sizes[blocks, 0], sizes[blocks, 1]
    if len(blocks) and int(compressed.min()) < limits.smallest_block:
        raise DamageError("its seek table lists a block without bytes", code="contradiction")
    return SeekTable(ends[blocks, 0] - compressed, compressed, ends[blocks, 1] - raw, raw)
