"""Encodes the next object of the archive: verified frames in, bytes and a record out.

One pass in bounded chunks: each batch is re-based and compressed before the next one is read. The
caller writes the bytes and then moves the tip (:mod:`.tip`), which the next object follows. After
a failure :meth:`Encoding.undo` restores the page hashes.

Owns: the content of segments, catch-ups and generation markers. Refuses: to read the WAL or the
cache, to write anything, and to move the tip.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace

from replicator.archive.keys import Keys
from replicator.cache.records import SegmentRecord
from replicator.capture.commit_times import Observation, WalObservations, commit_times
from replicator.capture.image import Image
from replicator.capture.limits import CaptureLimits
from replicator.capture.reader import Batch, require_page_size
from replicator.capture.tip import Tip
from replicator.errors import ContinuityLost
from replicator.format.buffers import U32, page_numbers
from replicator.format.database import DatabaseHeader, parse_database_header
from replicator.format.integrity import Integrity, place_of
from replicator.format.object_header import ObjectHeader, Summary
from replicator.format.page_hashes import HashChange, PageHashes
from replicator.format.segment import SegmentEncoder, generation_marker
from replicator.format.wal import FrameBuilder, Rebaser, scan, transaction_ends
from replicator.model import DatabaseState, Kind, WalPosition


@dataclass(frozen=True, slots=True)
class Author:
    """The writer of an object, as the object names it."""

    writer: str  # id of the cache
    created_by: str  # program and version
    host: str
    integrity: Integrity | None = None  # seals what the writer makes


@dataclass(slots=True)
class _Content:
    """Facts about a payload, gathered while its bytes pass."""

    change: HashChange
    ends: list[int] = field(default_factory=list)  # frames up to each commit
    frames: int = 0
    raw_bytes: int = 0
    seen: list[Observation] = field(default_factory=list)


Pieces = Generator[bytes, None, SegmentRecord]  # bytes of an object, in order; returns its record


class Encoding:
    """One segment: iterate over its bytes to the end, then read :attr:`record`."""

    record: SegmentRecord

    def __init__(self, pieces: Pieces, hashes: PageHashes, content: _Content) -> None:
        self.hashes = hashes
        self._pieces = pieces
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        self.record = yield from self._pieces

    @property
    def change(self) -> bytes:
        """The change of the page hashes, for the ledger; empty if the segment has no frames."""
        return self._content.change.to_bytes() if self._content.frames else b""

    @property
    def pgnos(self) -> U32:
        """The pages that have a new image."""
        return self._content.change.pgnos

    @property
    def header(self) -> DatabaseHeader | None:
        """The header of the database after the segment; None if page 1 has no new image."""
        return parse_database_header(self._content.change.header)

    def undo(self) -> None:
        """Takes the change of the page hashes back. Without a change, does nothing."""
        self._content.change.undo()


class Segmenter:
    """Used by the capture thread alone."""

    def __init__(
        self,
        author: Author,
        keys: Keys,
        tip: Tip,
        limits: CaptureLimits,
        *,
        clock_ms: Callable[[], int],
    ) -> None:
        self._author = author
        self._keys = keys
        self._limits = limits
        self._clock_ms = clock_ms
        self.tip = tip

    def describe(self, kind: Kind, generation: str, first_txid: int) -> ObjectHeader:
        """The header of an object that this writer makes now."""
        return ObjectHeader(
            kind=kind,
            generation=generation,
            first_txid=first_txid,
            page_size=self.tip.hashes.page_size,
            writer=self._author.writer,
            created_ms=self._now_ms(),
            created_by=self._author.created_by,
        )

    def notes(self, reason: str = "") -> dict[str, str]:
        """Metadata that no reader depends on: the host, the reason, and the txid of the newest
        event before this object."""
        notes = {
            "host": self._author.host,
            "reason": reason.encode("ascii", "replace").decode()[:400],
            "last-event": str(self.tip.head.event or ""),
        }
        return {name: text for name, text in notes.items() if text}

    def segment(
        self,
        start: WalPosition,
        batches: Iterable[Batch],
        end: WalPosition,
        observations: WalObservations,
        *,
        far: bool = False,
        fast: bool = False,
    ) -> Encoding:
        """The transactions of ``batches``, which go from ``start`` to ``end``.

        ``fast`` spends bytes to save time. Iterating raises ``ContinuityLost`` if a batch does
        not follow the one before.
        """
        content = _Content(HashChange(self.tip.hashes))
        payload = _rebased(start, batches, content, observations)
        level = self._limits.fast_level if fast else self._limits.level
        return self._encoding(Kind.SEGMENT, content, payload, end, level=level, far=far)

    def catch_up(self, image: Image, reason: str) -> Encoding | None:
        """The pages of ``image`` that differ from the page hashes, as one transaction; None if
        no page differs. ``ContinuityLost`` if the pages have another size."""
        require_page_size(self.tip.hashes.page_size, image.page_size)
        runs = _with_last(_differing(image, self.tip.hashes, self._limits.chunk_bytes))
        first = next(runs, None)
        if first is None and image.pages == self.tip.hashes.pages:
            return None
        if first is None:  # cut off at the end and otherwise the same: a commit needs a page
            first = (page_numbers(1), image.read(1, 1), True)
        content = _Content(HashChange(self.tip.hashes))
        payload = _frames_of(first, runs, image, content)
        level = self._limits.level
        return self._encoding(
            Kind.CATCH_UP, content, payload, image.position, level=level, reason=reason
        )

    def generation_marker(
        self, generation: str, hashes: PageHashes, position: WalPosition, reason: str
    ) -> Encoding:
        """The marker of a generation whose snapshot is in the store already."""
        header = replace(
            self.describe(Kind.GENERATION, generation, self.tip.head.txid + 1),
            page_size=hashes.page_size,
        )
        return Encoding(
            self._marker(header, hashes, position, reason), hashes, _Content(HashChange(hashes))
        )

    def _marker(
        self, header: ObjectHeader, hashes: PageHashes, position: WalPosition, reason: str
    ) -> Pieces:
        place = place_of(self._author.integrity, self._keys.wal(header.first_txid))
        data, summary = generation_marker(header, state=hashes.state, place=place)
        yield data
        return self._record(summary, position, hashes.state, hashes.checksum, 0, reason)

    def _encoding(
        self,
        kind: Kind,
        content: _Content,
        payload: Iterator[bytes],
        end: WalPosition,
        *,
        level: int,
        far: bool = False,
        reason: str = "",
    ) -> Encoding:
        header = self.describe(kind, self.tip.head.generation, self.tip.head.txid + 1)
        place = place_of(self._author.integrity, self._keys.wal(header.first_txid))
        encoder = SegmentEncoder(header, level=level, far=far, place=place)
        pieces = self._pieces(encoder, content, payload, end, reason)
        return Encoding(pieces, self.tip.hashes, content)

    def _pieces(
        self,
        encoder: SegmentEncoder,
        content: _Content,
        payload: Iterator[bytes],
        end: WalPosition,
        reason: str,
    ) -> Pieces:
        before = self.tip.hashes.checksum
        yield encoder.start()
        for piece in payload:
            yield encoder.write(piece)
        content.change.apply()
        rest, summary = encoder.finish(
            last_txid=self.tip.head.txid + len(content.ends),
            state=self.tip.hashes.state,
            before=before,
            commit_frames=_differences(content.ends),
            commit_times_ms=commit_times(
                content.ends, content.seen, least=self.tip.head.commit_ms, now=self._now_ms()
            ),
        )
        yield rest
        return self._record(summary, end, self.tip.hashes.state, before, content.raw_bytes, reason)

    def _now_ms(self) -> int:
        """The time in the archive never decreases, whatever the clock does."""
        return max(self._clock_ms(), self.tip.head.commit_ms)

    def _record(
        self,
        summary: Summary,
        end: WalPosition,
        state: DatabaseState,
        before: int,
        raw_bytes: int,
        reason: str,
    ) -> SegmentRecord:
        header, trailer = summary.header, summary.trailer
        return SegmentRecord(
            first_txid=header.first_txid,
            last_txid=trailer.last_txid,
            generation=header.generation,
            kind=header.kind,
            key=self._keys.wal(header.first_txid),
            size=summary.size,
            raw_bytes=raw_bytes,
            sha256=summary.sha256,
            end=end,
            state=state,
            checksum_before=before,
            commit_ms=trailer.last_commit_ms or header.created_ms,
            first_commit_ms=trailer.first_commit_ms or header.created_ms,
            metadata=summary.metadata() | self.notes(reason),
            created_ms=self._clock_ms(),
        )


def _rebased(
    start: WalPosition,
    batches: Iterable[Batch],
    content: _Content,
    observations: WalObservations,
) -> Iterator[bytes]:
    """The self-contained WAL file of a run of committed frames."""
    rebaser = Rebaser(start)
    yield rebaser.header
    end = start
    for batch in batches:
        if batch.base != end:  # better no segment than one that cannot be restored
            raise ContinuityLost(f"frame {batch.base.frame + 1} does not follow {end.frame}")
        end = batch.end
        content.change.add(batch.frames, batch.count, batch.data)
        content.ends += [content.frames + n for n in transaction_ends(batch.frames, batch.count)]
        content.seen += [
            (frame - start.frame, at_ms) for frame, at_ms in observations.matching(batch)
        ]
        content.frames += batch.count
        piece = rebaser.feed(batch.data, batch.frames, batch.count)
        content.raw_bytes += len(piece)
        yield piece


Run = tuple[U32, bytearray, bool]  # page numbers, their images, True for the last run


def _differing(
    image: Image, hashes: PageHashes, chunk_bytes: int
) -> Iterator[tuple[U32, bytearray]]:
    """Runs of pages whose image differs from the page hashes."""
    size = image.page_size
    step = max(1, chunk_bytes // size)
    for first in range(1, image.pages + 1, step):
        data = image.read(first, min(step, image.pages + 1 - first))
        pgnos = hashes.differing(first, data)
        if len(pgnos):
            pages = bytearray()
            for pgno in pgnos.tolist():
                pages += data[(pgno - first) * size : (pgno - first + 1) * size]
            yield pgnos, pages


def _with_last(runs: Iterator[tuple[U32, bytearray]]) -> Iterator[Run]:
    held = next(runs, None)
    while held is not None:
        following = next(runs, None)
        yield (*held, following is None)
        held = following


def _frames_of(first: Run, rest: Iterator[Run], image: Image, content: _Content) -> Iterator[bytes]:
    """One transaction made of page images, as a WAL file."""
    salts = struct.unpack(">2I", os.urandom(8))
    builder = FrameBuilder(image.page_size, salts=(salts[0], salts[1]))
    yield builder.header
    run: Run | None = first
    while run is not None:
        pgnos, pages, last = run
        base = builder.position
        piece = builder.feed(pgnos, pages, commit=image.pages if last else 0)
        frames = scan(piece, base)
        content.change.add(frames, frames.count, piece)
        content.frames += frames.count
        content.raw_bytes += len(piece)
        yield piece
        run = next(rest, None)
    content.ends.append(content.frames)


def _differences(ends: list[int]) -> tuple[int, ...]:
    return tuple(end - begin for begin, end in zip([0, *ends], ends, strict=False))
