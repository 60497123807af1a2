"""One log object, decoded and proved, ready to be applied.

Owns: SHA-256, WAL checksums and the object's index against its frames, in one pass over the
bytes. A small payload stays in memory; a larger one is decoded again, from bytes that are local
by then, when its pages are wanted, so that memory does not grow with a transaction.
Refuses to know about other objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate

from replicator.format.envelope import damaged
from replicator.format.objects import ObjectHeader, Trailer
from replicator.format.overlay import join, tail
from replicator.format.segment import SegmentDecoder
from replicator.format.wal import (
    FRAME_HEADER_SIZE,
    HEADER_SIZE,
    Frames,
    parse_header,
    scan,
    transaction_ends,
)
from replicator.model import LogPosition

IN_MEMORY_BYTES = 64 * 1024 * 1024
CHUNK_BYTES = 4 * 1024 * 1024

Source = Callable[[], Iterator[bytes]]  # the object's bytes from the start, any number of times
Chunk = tuple[bytes, Frames]  # whole frames, and what a scan says of them


@dataclass(frozen=True, eq=False, slots=True)
class Segment:
    """``frames`` are all of them; ``index`` counts those up to the end of each transaction, and
    is empty where the object does not tell."""

    key: str
    header: ObjectHeader
    trailer: Trailer
    frames: Frames
    index: tuple[int, ...]
    _source: Source
    _chunks: tuple[Chunk, ...] | None

    def chunks(self, start: int = 0) -> Iterator[tuple[int, bytes, Frames]]:
        """Frames from ``start`` on, in pieces: index of the first, bytes, scan."""
        width = self.header.page_size + FRAME_HEADER_SIZE
        at = 0
        for data, frames in self._chunks or _decode(SegmentDecoder(self.key), self._source()):
            skip = min(max(0, start - at), frames.count)
            if skip < frames.count:
                yield at + skip, data[skip * width:], tail(frames, skip)
            at += frames.count

    def committed_at(self, txid: int) -> int | None:
        """When ``txid`` was committed (ms), where the object tells."""
        times = self.trailer.commit_times_ms
        if txid == self.trailer.last_txid:
            return self.trailer.last_commit_ms
        every = self.trailer.last_txid - self.header.first_txid + 1
        return times[txid - self.header.first_txid] if len(times) == every else None


def load_segment(key: str, source: Source) -> Segment:
    """Read an object to its end. ``DamageError`` names it when anything does not fit."""
    decoder = SegmentDecoder(key)
    scans: list[Frames] = []
    kept: list[Chunk] | None = []
    size = 0
    for data, frames in _decode(decoder, source()):
        scans.append(frames)
        size += len(data)
        if size > IN_MEMORY_BYTES:
            kept = None
        elif kept is not None:
            kept.append((data, frames))
    summary = decoder.finish()
    joined = join(scans)
    index = tuple(accumulate(summary.trailer.commit_frames))
    _check(key, summary.trailer, joined, index)
    chunks = None if kept is None else tuple(kept)
    return Segment(key, summary.header, summary.trailer, joined, index, source, chunks)


def _check(key: str, trailer: Trailer, frames: Frames, index: tuple[int, ...]) -> None:
    if frames.committed != frames.count:
        raise damaged(key, "its last frame does not end a transaction")
    if frames.count and int(frames.commits[-1]) != trailer.pages:
        raise damaged(key, "its last commit contradicts its trailer")
    if index and list(index) != transaction_ends(frames, frames.count):
        raise damaged(key, "its index of transactions contradicts its frames")


def _decode(decoder: SegmentDecoder, source: Iterator[bytes]) -> Iterator[Chunk]:
    """The frames of an object in chunks; every frame must verify. Half a frame at the end is
    for the decoder to refuse, which knows the length of the payload."""
    position = None
    buffer = bytearray()
    for more in _payload(decoder, source):
        buffer += more
        if position is None:
            position = _start(decoder, bytes(buffer[:HEADER_SIZE]))
            del buffer[:HEADER_SIZE]
        width = position.page_size + FRAME_HEADER_SIZE
        whole = len(buffer) // width * width
        data = bytes(memoryview(buffer)[:whole])
        frames = scan(data, position)
        if frames.count * width != whole:
            raise damaged(decoder.key, f"frame {position.frame + frames.count + 1} does not "
                          "continue its checksums")
        del buffer[:whole]
        position = frames.position(position, frames.count)
        yield data, frames


def _start(decoder: SegmentDecoder, data: bytes) -> LogPosition:
    header = parse_header(data)
    if header is None or decoder.header is None or (
            header.page_size != decoder.header.page_size):
        raise damaged(decoder.key, "its payload does not begin like a WAL")
    return header.start()


def _payload(decoder: SegmentDecoder, source: Iterator[bytes]) -> Iterator[bytes]:
    """Decompressed bytes in pieces worth scanning; only the last may be small."""
    held: list[bytes] = []
    size = 0
    for data in source:
        for piece in decoder.pieces(data):
            held.append(piece)
            size += len(piece)
            if size >= CHUNK_BYTES:
                yield b"".join(held)
                held, size = [], 0
    yield b"".join(held)
