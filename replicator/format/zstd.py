"""Zstandard frames: the only module that compresses or decompresses.

Threads must not share a context, so each thread keeps its own. All output is bounded: damaged or
hostile input causes an error and does not exhaust the machine's memory.
Source: RFC 8878 (frames, skippable frames).
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator

import zstandard

from replicator.errors import DamageError
from replicator.format.buffers import Buffer

MAX_WINDOW_LOG = 27  # every decoder must accept it; `zstd -d` needs an option for more

_SKIPPABLE = struct.Struct("<II")
_SKIPPABLE_MAGIC = 0x184D2A50  # the lowest four bits are free
SKIPPABLE_HEADER_SIZE = _SKIPPABLE.size

_FAR_HASH_LOG = 19  # entries of 4 bytes; twice as many cost half as much CPU again, for 1 %

# A block of 128 KiB can be as small as 4 bytes, so this much input makes at most 32 MiB.
_SLICE = 1024

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
            max_window_size=1 << MAX_WINDOW_LOG
        ).decompressobj()
        self.finished = False
        self.rest = b""

    def feed(self, data: Buffer) -> Iterator[bytes]:
        """Content in pieces of at most 32 MiB; must be consumed before the next call."""
        view = memoryview(data)
        for start in range(0, len(view), _SLICE):
            if self.finished:
                self.rest += view[start:]
                return
            piece = self._decompress(view[start : start + _SLICE])
            if piece:
                yield piece

    def _decompress(self, data: memoryview) -> bytes:
        try:
            piece = self._stream.decompress(data)
        except zstandard.ZstdError as error:
            raise _undecodable(error) from error
        if self._stream.eof:
            self.finished, self.rest = True, self._stream.unused_data
        return piece


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
