"""Zstandard frames: the only module that compresses or decompresses.

Threads must not share a context, so each thread keeps its own. All output is bounded: damaged or
hostile input causes an error and does not exhaust the machine's memory.
Source: RFC 8878 (frames, skippable frames).
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator

import zstandard

from replicator.errors import DamageError
from replicator.format.buffers import Buffer

MAX_WINDOW_LOG = 27  # of an index; every decoder must accept it
STREAM_WINDOW_LOG = 24  # of WAL files, see docs/format.md

_SKIPPABLE = struct.Struct("<II")
_SKIPPABLE_MAGIC = 0x184D2A50  # the lowest four bits are free
SKIPPABLE_HEADER_SIZE = _SKIPPABLE.size

_FAR_HASH_LOG = 19  # entries of 4 bytes; twice as many cost half as much CPU again, for 1 %

_BLOCKS = 16  # decompressed at once; a block holds at most 128 KiB
_FRAME_START = 5  # magic and descriptor
_BLOCK_HEADER = 3
_REPEATED = 1  # the type of a block that is one byte, repeated
_ENDLESS = 1 << 62

_local = threading.local()


def compress_frame(data: Buffer, level: int) -> bytes:
    """One frame with content size and content checksum. Releases the GIL."""
    compressors: dict[int, zstandard.ZstdCompressor] = _local.__dict__.setdefault("by_level", {})
    if level not in compressors:
        compressors[level] = zstandard.ZstdCompressor(level, write_checksum=True)
    return compressors[level].compress(data)


def decompress_frame(data: Buffer, max_size: int) -> bytes:
    """The content of exactly one frame, which must declare at most ``max_size`` bytes."""
    try:
        size = zstandard.get_frame_parameters(data).content_size
        if size > max_size:  # zstd gives the largest number for an unknown size
            raise DamageError(
                f"zstd frame declares {size} bytes, more than {max_size}", code="undecodable"
            )
        return _decompressor().decompress(data, max_output_size=max_size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise _undecodable(error) from error


def _undecodable(error: zstandard.ZstdError) -> DamageError:
    return DamageError(f"zstd frame does not decompress: {error}", code="undecodable")


def _decompressor() -> zstandard.ZstdDecompressor:
    decompressor: zstandard.ZstdDecompressor | None = getattr(_local, "decompressor", None)
    if decompressor is None:
        decompressor = zstandard.ZstdDecompressor(max_window_size=1 << MAX_WINDOW_LOG)
        _local.decompressor = decompressor
    return decompressor


class StreamCompressor:
    """Compresses a stream of unknown length into one frame with a content checksum.

    The size of the hash table limits the distance at which zstd finds an earlier version of a
    page. With the few default entries of a low level, zstd forgets it after two or three
    megabytes of incompressible data: 35 MB of WAL from rows of random bytes became 13.6 MB at
    level 3, and 7.6 MB with ``_FAR_HASH_LOG``. zstd's own long-distance matching saves 3 % more,
    for half as much CPU again at level 3 and twice as much at level 1.
    """

    def __init__(self, level: int, window_log: int, *, far: bool = True) -> None:
        """``far``: earlier versions of pages may be as far back as the window reaches."""
        parameters = zstandard.ZstdCompressionParameters.from_level(
            level, window_log=window_log, write_checksum=True
        )
        if far and parameters.hash_log < _FAR_HASH_LOG:
            parameters = zstandard.ZstdCompressionParameters.from_level(
                level, window_log=window_log, hash_log=_FAR_HASH_LOG, write_checksum=True
            )
        self._stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()

    def compress(self, data: Buffer) -> bytes:
        return self._stream.compress(data)

    def finish(self) -> bytes:
        return self._stream.flush()


class StreamDecompressor:
    """Decompresses one frame given in pieces. ``rest`` holds the bytes after the frame."""

    def __init__(self) -> None:
        self._stream = zstandard.ZstdDecompressor(
            max_window_size=1 << STREAM_WINDOW_LOG
        ).decompressobj()
        self._blocks = _BlockCounter()
        self.finished = False
        self.rest = bytearray()

    def feed(self, data: Buffer) -> Iterator[bytes]:
        """Content in pieces of at most 2 MiB; must be consumed before the next call."""
        view = memoryview(data)
        while len(view) > 0:
            if self.finished:
                self.rest += view
                return
            size = self._blocks.advance(view, _BLOCKS)
            piece = self._decompress(view[:size])
            view = view[size:]
            if piece:
                yield piece

    def _decompress(self, data: memoryview) -> bytes:
        try:
            piece = self._stream.decompress(data)
        except zstandard.ZstdError as error:
            raise _undecodable(error) from error
        if self._stream.eof:
            self.finished = True
            self.rest += self._stream.unused_data
        return piece


class _BlockCounter:
    """Counts the blocks of one zstd frame as its bytes pass, to bound the output of each piece.

    A block of a few bytes can hold 128 KiB. A frame that this class misreads is one that zstd
    refuses.
    """

    def __init__(self) -> None:
        self._left = _FRAME_START  # bytes up to the next header, or of a header
        self._header = bytearray()  # the bytes of a header so far
        self._expect: Callable[[], None] = self._frame_start
        self._inside = False  # a block, and not a header
        self._last = 0

    def advance(self, view: memoryview, blocks: int) -> int:
        """The number of bytes of ``view`` that complete at most so many blocks; at least 1."""
        at = 0
        while at < len(view) and blocks > 0:
            step = min(self._left, len(view) - at)
            if not self._inside:
                self._header += view[at : at + step]
            self._left -= step
            at += step
            if not self._left:
                blocks -= self._inside
                self._expect()
        return at

    def _frame_start(self) -> None:
        descriptor = self._header[4]
        single = descriptor >> 5 & 1
        content_size = (single, 2, 4, 8)[descriptor >> 6]
        self._next(1 - single + (0, 1, 2, 4)[descriptor & 3] + content_size, self._frame_rest)

    def _frame_rest(self) -> None:
        self._next(_BLOCK_HEADER, self._block_header)

    def _block_header(self) -> None:
        header = int.from_bytes(self._header, "little")
        self._last = header & 1
        size = 1 if header >> 1 & 3 == _REPEATED else header >> 3
        self._next(size, self._content)

    def _content(self) -> None:
        if self._last:
            self._next(_ENDLESS, self._content)
        else:
            self._next(_BLOCK_HEADER, self._block_header)

    def _next(self, size: int, expect: Callable[[], None]) -> None:
        self._left, self._expect = size, expect
        self._inside = expect == self._content
        self._header.clear()
        if not size:
            expect()


def skippable_frame(nibble: int, content: bytes) -> bytes:
    """A frame that every zstd decoder skips. ``nibble`` (0 … 15) identifies its use."""
    return _SKIPPABLE.pack(_SKIPPABLE_MAGIC | nibble, len(content)) + content


def parse_skippable(data: Buffer, nibble: int) -> int | None:
    """The length of the skippable frame at the start of ``data``; None if ``data`` does not
    begin with one of that use."""
    if len(data) < SKIPPABLE_HEADER_SIZE:
        return None
    magic, length = _SKIPPABLE.unpack_from(data)
    return SKIPPABLE_HEADER_SIZE + length if magic == _SKIPPABLE_MAGIC | nibble else None
