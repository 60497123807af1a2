"""SQLite's WAL as values: header, frames, and the scan that finds the committed ones.

Owns the layout of a WAL, the rule for a valid frame, and the rule for the frames whose images
survive. Refuses to know the source of the bytes, which of them were captured before, and
anything about objects or compression.
Source: SQLite documentation, "WAL-mode File Format".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from replicator.format.buffers import U32, Buffer, Flags, Indexes
from replicator.format.checksum import Checksum, FrameSums, plain_checksum
from replicator.format.numbers import Numbers
from replicator.model import WalPosition

HEADER_SIZE = 32
FRAME_HEADER_SIZE = 24

_MAGIC = 0x377F0682  # the lowest bit is the byte order of the checksum words: 1 is big-endian
_VERSION = 3007000
_HEADER = struct.Struct(">8I")
_HEADER_FIELDS = struct.Struct(">6I")
_FRAME_HEADER = struct.Struct(">6I")

# Frames are verified in batches of this many bytes, so that the second dot product finds the
# batch in the processor's cache and a big-endian WAL needs only a small swapped copy.
_BATCH_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class WalHeader:
    """The first 32 bytes of a WAL. ``big_endian`` is the byte order of the checksum words."""

    page_size: int
    sequence: int
    salt1: int
    salt2: int
    checksum: Checksum
    big_endian: bool

    @property
    def frame_size(self) -> int:
        return self.page_size + FRAME_HEADER_SIZE

    def encode(self) -> bytes:
        return _header_fields(self) + struct.pack(">2I", *self.checksum)

    def start(self) -> WalPosition:
        return WalPosition(
            self.salt1, self.salt2, 0, self.checksum, self.big_endian, self.page_size
        )

    def offset(self, frame: int) -> int:
        """Byte offset in the file right after ``frame`` frames."""
        return HEADER_SIZE + frame * self.frame_size


def frame_size(position: WalPosition) -> int:
    """Bytes of one frame, its header included."""
    return position.page_size + FRAME_HEADER_SIZE


def offset_of(position: WalPosition) -> int:
    """Byte offset of the position in its file."""
    return HEADER_SIZE + position.frame * frame_size(position)


def _header_fields(header: WalHeader) -> bytes:
    return _HEADER_FIELDS.pack(
        _MAGIC | header.big_endian,
        _VERSION,
        header.page_size,
        header.sequence,
        header.salt1,
        header.salt2,
    )


def parse_header(data: Buffer) -> WalHeader | None:
    """The header, or None if SQLite would treat the WAL as empty (too short, foreign, or
    partly written)."""
    if len(data) < HEADER_SIZE:
        return None
    magic, version, page_size, sequence, salt1, salt2, *checksum = _HEADER.unpack_from(data)
    if magic & ~1 != _MAGIC or version != _VERSION or not valid_page_size(page_size):
        return None
    big_endian = bool(magic & 1)
    if plain_checksum(data[: _HEADER_FIELDS.size], big_endian) != tuple(checksum):
        return None
    return WalHeader(page_size, sequence, salt1, salt2, (checksum[0], checksum[1]), big_endian)


def valid_page_size(page_size: int) -> bool:
    return 512 <= page_size <= 65536 and page_size & (page_size - 1) == 0


def new_header(
    page_size: int, *, salts: tuple[int, int], sequence: int = 0, big_endian: bool = False
) -> WalHeader:
    draft = WalHeader(page_size, sequence, *salts, (0, 0), big_endian)
    return replace(draft, checksum=plain_checksum(_header_fields(draft), big_endian))


def frame_header(data: Buffer) -> tuple[int, int, int, int, Checksum]:
    """Page number, database size in pages (0: not a commit), salts, and checksum of 24 bytes."""
    pgno, commit, salt1, salt2, *checksum = _FRAME_HEADER.unpack_from(data)
    return pgno, commit, salt1, salt2, (checksum[0], checksum[1])


class Sizes(NamedTuple):
    """Database sizes in pages that a run of frames commits: the last, and the smallest."""

    last: int
    smallest: int


@dataclass(frozen=True, eq=False, slots=True)
class Frames:
    """The valid frames at the start of the scanned bytes.

    ``pages`` and ``commits`` are uint32[count]: page numbers, and the database size in pages at
    commit frames (0 elsewhere). ``checksums`` is uint32[count, 2], cumulative after each frame.
    ``committed`` counts the frames up to and including the last commit.
    """

    count: int
    committed: int
    pages: U32
    commits: U32
    checksums: U32

    def position(self, base: WalPosition, n: int | None = None) -> WalPosition:
        """The position ``n`` frames (default: up to the last commit) after ``base``."""
        n = self.committed if n is None else n
        if n == 0:
            return base
        return replace(base, frame=base.frame + n, checksum=_pair(self.checksums[n - 1]))

    def sizes(self, count: int) -> Sizes | None:
        """The sizes that the first ``count`` frames commit; None if none of them commits.

        A page beyond the smallest size was cut off. An image from before that commit belongs
        to no later state, even if the database grows over the page's number again.
        """
        sizes = self.commits[:count]
        sizes = sizes[sizes != 0]
        return Sizes(int(sizes[-1]), int(sizes.min())) if len(sizes) else None

    def after(self, count: int) -> Frames:
        """The frames after the first ``count``."""
        return Frames(
            self.count - count,
            max(0, self.committed - count),
            self.pages[count:],
            self.commits[count:],
            self.checksums[count:],
        )

    @staticmethod
    def joined(parts: Sequence[Frames]) -> Frames:
        """Frames of consecutive pieces of one WAL, as one scan of all pieces would give them."""
        commits = np.concatenate([part.commits for part in parts])
        return Frames(
            sum(part.count for part in parts),
            _committed(commits),
            np.concatenate([part.pages for part in parts]),
            commits,
            np.concatenate([part.checksums for part in parts]),
        )


def _committed(commits: U32) -> int:
    """Number of frames up to and including the last commit."""
    ends = np.flatnonzero(commits)
    return int(ends[-1]) + 1 if len(ends) else 0


def scan(data: Buffer, base: WalPosition) -> Frames:
    """The valid prefix of ``data``, whose first byte follows ``base`` directly.

    A frame is valid if it has the salts of ``base``, a page number, and a checksum that
    continues the chain. The first invalid frame ends the prefix, as it does in SQLite. A
    partial frame at the end is ignored.
    """
    headers, valid = _valid_prefix(data, base)
    headers = headers[:valid]
    commits = headers[:, 1]
    return Frames(
        valid,
        _committed(commits),
        np.ascontiguousarray(headers[:, 0]),
        np.ascontiguousarray(commits),
        np.ascontiguousarray(headers[:, 4:]),
    )


def _valid_prefix(data: Buffer, base: WalPosition) -> tuple[U32, int]:
    """Frame headers as native uint32[frames, 6], and the number of valid frames."""
    words = _words(data, base.page_size)
    headers = words[:, :6].view(">u4").astype(np.uint32)
    plausible = (headers[:, 0] != 0) & (headers[:, 2] == base.salt1) & (headers[:, 3] == base.salt2)
    candidates = _true_prefix(plausible)
    sums = FrameSums.of(base.page_size)
    step = max(1, _BATCH_BYTES // (base.page_size + FRAME_HEADER_SIZE))
    seed = base.checksum
    for first in range(0, candidates, step):
        last = min(first + step, candidates)
        stored = headers[first:last, 4:]
        good = _true_prefix(sums.verify(words[first:last], stored, seed, base.big_endian))
        if good < last - first:
            return headers, first + good
        seed = _pair(stored[-1])
    return headers, candidates


def _words(data: Buffer, page_size: int) -> U32:
    """Whole frames as uint32[frames, words] in their order in memory, without a copy."""
    width = (page_size + FRAME_HEADER_SIZE) // 4
    frames = len(data) // (4 * width)
    return np.frombuffer(data, np.uint32, frames * width).reshape(frames, width)


def _true_prefix(flags: Flags) -> int:
    false = np.flatnonzero(~flags)
    return int(false[0]) if len(false) else len(flags)


def newest(frames: Frames, count: int) -> tuple[U32, Indexes]:
    """Page numbers (ascending) and the index of the newest frame of each, among the first
    ``count`` frames.

    A page that a later commit cut off is left out: its image belongs to no final state.
    """
    pgnos, back = np.unique(frames.pages[:count][::-1], return_index=True)
    indexes = count - 1 - back
    alive = pgnos <= _smallest_later_size(frames.commits[:count])[indexes]
    return pgnos[alive], indexes[alive]


def _smallest_later_size(commits: U32) -> U32:
    """For each frame, the smallest size the database has at or after it."""
    sizes = np.where(commits == 0, np.uint32(0xFFFFFFFF), commits)
    return np.minimum.accumulate(sizes[::-1])[::-1]


def rewritten(runs: Iterable[Frames]) -> bool:
    """True if at least a sixteenth of the frames hold a page that another of them holds too."""
    pages = [frames.pages for frames in runs]
    count = sum(map(len, pages))
    return bool(count) and 16 * (count - len(np.unique(np.concatenate(pages)))) >= count


def transaction_ends(frames: Frames, count: int) -> Numbers:
    """For each transaction within the first ``count`` frames, the number of frames up to its
    end."""
    return Numbers(np.flatnonzero(frames.commits[:count]) + 1)


class Rebaser:
    """Turns consecutive frames of a WAL into the frames of a self-contained WAL file.

    The frames keep pages, salts and byte order. Only the checksum chain moves to the new
    header, which takes arithmetic per frame, not per byte.
    """

    def __init__(self, base: WalPosition, *, sequence: int = 0) -> None:
        header = new_header(
            base.page_size,
            salts=(base.salt1, base.salt2),
            sequence=sequence,
            big_endian=base.big_endian,
        )
        self.header = header.encode()
        self.position = header.start()
        self._shift = _difference(header.checksum, base.checksum)
        self._sums = FrameSums.of(base.page_size)

    def feed(self, data: Buffer, frames: Frames, count: int) -> bytes:
        """The re-based bytes of the first ``count`` frames of ``data``. ``frames`` is their
        scan, which must start at the end of the previous call."""
        size = count * (self.position.page_size + FRAME_HEADER_SIZE)
        if count == 0:
            return b""
        shifts = self._sums.chain(np.zeros((count, 2), np.uint32), self._shift)
        checksums = frames.checksums[:count] + shifts
        self._shift = _pair(shifts[-1])
        self.position = replace(
            self.position, frame=self.position.frame + count, checksum=_pair(checksums[-1])
        )
        if not shifts.any():
            return bytes(memoryview(data)[:size])
        words = _words(memoryview(data)[:size], self.position.page_size).copy()
        words[:, 4:6].view(">u4")[:] = checksums
        return words.tobytes()


class FrameBuilder:
    """Makes a WAL file from page images. ``position`` is the end of the frames built so far."""

    def __init__(self, page_size: int, *, salts: tuple[int, int], big_endian: bool = False) -> None:
        header = new_header(page_size, salts=salts, big_endian=big_endian)
        self.header = header.encode()
        self.position = header.start()
        self._sums = FrameSums.of(page_size)

    def feed(self, pgnos: U32, pages: Buffer, *, commit: int = 0) -> bytes:
        """Frames for the page images in ``pages``, one after another, numbered ``pgnos``.

        The last frame commits a database of ``commit`` pages unless that is 0; a commit needs
        at least one page (ValueError).
        """
        count, base = len(pgnos), self.position
        if count == 0:
            if commit:
                raise ValueError("a commit needs a frame")
            return b""
        words = np.empty((count, base.page_size // 4 + 6), np.uint32)
        words[:, 6:] = np.frombuffer(pages, np.uint32).reshape(count, -1)
        head = words[:, :6].view(">u4")
        head[:, 0], head[:, 1] = pgnos, 0
        head[-1, 1] = commit
        head[:, 2], head[:, 3] = base.salt1, base.salt2
        return self._seal(words)

    def carry(self, data: Buffer) -> bytes:
        """Frames with the pages, page numbers and commits of the whole frames in ``data``,
        which may come from any WAL of the same page size."""
        words = _words(data, self.position.page_size).copy()
        if not len(words):
            return b""
        words[:, 2:4].view(">u4")[:] = self.position.salt1, self.position.salt2
        return self._seal(words)

    def _seal(self, words: U32) -> bytes:
        """Write the checksums into the frames, and move ``position`` to their end."""
        base = self.position
        sums = self._sums.data_sums(words, base.big_endian)
        checksums = self._sums.chain(sums, base.checksum)
        words[:, 4:6].view(">u4")[:] = checksums
        self.position = replace(base, frame=base.frame + len(words), checksum=_pair(checksums[-1]))
        return words.tobytes()


def _pair(row: U32) -> Checksum:
    return int(row[0]), int(row[1])


def _difference(a: Checksum, b: Checksum) -> Checksum:
    return (a[0] - b[0]) & 0xFFFFFFFF, (a[1] - b[1]) & 0xFFFFFFFF
