"""The data frames of a snapshot: how one is made, and the proof of their bytes.

Owns the two ways in which a trailer vouches for the data before it: one SHA-256 over all of it
(format 1), or one for each frame (format 2), which is what lets a snapshot take over frames of
an earlier one without reading them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from replicator.errors import DamageError
from replicator.format import zstd
from replicator.format.buffers import Buffer
from replicator.format.envelope import Tail, damaged, encode_digests


@dataclass(frozen=True, slots=True)
class Frame:
    """One data frame: its bytes, their number and SHA-256; bytes and SHA-256 of the pages in
    it. ``data`` is empty where the bytes are not at hand."""

    size: int
    raw: int
    sha256: bytes
    pages_sha256: bytes
    data: bytes = b""


def compress(raw: Buffer, level: int, pages_sha256: bytes | None = None) -> Frame:
    """Lets other threads run meanwhile. ``pages_sha256`` where it is known."""
    data = zstd.compress_frame(raw, level)
    return Frame(
        len(data),
        len(raw),
        hashlib.sha256(data).digest(),
        pages_sha256 or hashlib.sha256(raw).digest(),
        data,
    )


class DataProof:
    """Compares what lies before the trailer with the trailer, in order, in pieces of any size.
    ``DamageError`` from the piece that completes a frame which is not what was written."""

    def __init__(self, tail: Tail, key: str) -> None:
        self._key = key
        self._trailer = tail.trailer
        self._sizes = (
            [] if tail.trailer.frames is None else [entry.compressed for entry in tail.seek or ()]
        )
        self._whole = self._sha = hashlib.sha256()  # of the header, or of all there is
        self._left = tail.trailer_offset - sum(self._sizes)  # bytes until the next comparison
        self._ended = 0  # data frames, and the header
        self._compared = 0  # data frames whose pages were given

    def update(self, data: Buffer) -> None:
        view = memoryview(data)
        while len(view) > 0:
            piece = view[: self._left]
            if not piece:
                raise self._damaged()
            self._sha.update(piece)
            self._left -= len(piece)
            view = view[len(piece) :]
            if not self._left:
                self._end()

    def _end(self) -> None:
        frames, number = self._trailer.frames, self._ended - 1
        if frames is not None and number >= 0 and self._sha.digest() != frames.frame(number):
            raise self._damaged()
        if frames is not None and number < 0:
            self._whole.update(encode_digests(frames))
        if self._ended < len(self._sizes):
            self._left, self._sha = self._sizes[self._ended], hashlib.sha256()
        self._ended += 1

    def pages(self, raw: Buffer) -> None:
        """The same for what the frames decompress to, one after another: the next snapshot is
        going to rely on it."""
        frames, number = self._trailer.frames, self._compared
        self._compared += 1
        if frames is not None and hashlib.sha256(raw).digest() != frames.pages(number):
            raise damaged(self._key, "the SHA-256 of its pages does not match")

    def finish(self) -> None:
        """That was all of it."""
        if self._ended <= len(self._sizes) or self._whole.digest() != self._trailer.data_sha256:
            raise self._damaged()

    def _damaged(self) -> DamageError:
        return damaged(self._key, "the SHA-256 of its data does not match")
