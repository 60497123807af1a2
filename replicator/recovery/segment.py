"""One WAL object, decoded and proved, ready to be applied.

Owns: SHA-256, WAL checksums and the object's index against its frames, in one pass over the
bytes. A small payload stays in memory; a larger one is decoded again, from bytes that are local
by then, when its pages are wanted, so that memory does not grow with a transaction.
Refuses to know about other objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from replicator.format.envelope import damaged
from replicator.format.integrity import Integrity
from replicator.format.numbers import Numbers
from replicator.format.object_header import ObjectHeader, Trailer
from replicator.format.payload import Chunk, decode_frames
from replicator.format.segment import SegmentDecoder
from replicator.format.wal import FRAME_HEADER_SIZE, Frames, transaction_ends

Source = Callable[[], Iterator[bytes]]  # the object's bytes from the start, any number of times


@dataclass(frozen=True, eq=False, slots=True)
class Segment:
    """``frames`` are all of them; ``index`` counts those up to the end of each transaction, and
    is empty if the object does not list them."""

    key: str
    header: ObjectHeader
    trailer: Trailer
    frames: Frames
    index: Sequence[int]
    _source: Source
    _chunks: tuple[Chunk, ...] | None

    def chunks(self, start: int = 0) -> Iterator[tuple[int, bytes, Frames]]:
        """Frames from ``start`` on, in pieces: index of the first, bytes, scan."""
        width = self.header.page_size + FRAME_HEADER_SIZE
        at = 0
        again = self._chunks or decode_frames(SegmentDecoder(self.key), self._source())
        for data, frames in again:
            skip = min(max(0, start - at), frames.count)
            if skip < frames.count:
                yield at + skip, data[skip * width :], frames.after(skip)
            at += frames.count

    def committed_at(self, txid: int) -> int | None:
        """The time of the commit of ``txid`` (ms), if the object lists it."""
        times = self.trailer.commit_times_ms
        if txid == self.trailer.last_txid:
            return self.trailer.last_commit_ms
        every = self.trailer.last_txid - self.header.first_txid + 1
        return times[txid - self.header.first_txid] if len(times) == every else None


def load_segment(
    key: str, source: Source, *, in_memory: int, integrity: Integrity | None = None
) -> Segment:
    """Read an object to its end. ``DamageError`` names it when anything does not fit. A payload
    of up to ``in_memory`` bytes is kept."""
    decoder = SegmentDecoder(key, integrity=integrity)
    scans: list[Frames] = []
    kept: list[Chunk] | None = []
    size = 0
    for data, frames in decode_frames(decoder, source()):
        scans.append(frames)
        size += len(data)
        if size > in_memory:
            kept = None
        elif kept is not None:
            kept.append((data, frames))
    summary = decoder.finish()
    joined = Frames.joined(scans)
    index = Numbers.of(summary.trailer.commit_frames).totals()
    _check(key, summary.trailer, joined, index)
    chunks = None if kept is None else tuple(kept)
    return Segment(key, summary.header, summary.trailer, joined, index, source, chunks)


def _check(key: str, trailer: Trailer, frames: Frames, index: Sequence[int]) -> None:
    if frames.committed != frames.count:
        raise damaged(key, "its last frame does not end a transaction", code="contradiction")
    if frames.count and int(frames.commits[-1]) != trailer.pages:
        raise damaged(key, "its last commit contradicts its trailer", code="contradiction")
    if index and index != transaction_ends(frames, frames.count):
        raise damaged(key, "its index of transactions contradicts its frames", code="contradiction")
