"""Cutting: committed frames, or the pages that differ after a gap, become a cached segment.

One pass in bounded chunks: read, verify, re-base, compress, write. A segment is in the ledger,
and the page hashes and the head of the log move, only once its file is durable; a failure on
the way leaves everything as it was.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from replicator.archive.keys import Keys
from replicator.cache.cache import Cache
from replicator.cache.records import SegmentRecord
from replicator.capture.commit_times import Seen, WalObservations, commit_times
from replicator.capture.image import Image
from replicator.capture.reader import CHUNK_BYTES, Committed, WalReader
from replicator.errors import ContinuityLost
from replicator.format.buffers import U32, page_numbers
from replicator.format.object_header import ObjectHeader, Summary
from replicator.format.page_hashes import HashChange, PageHashes
from replicator.format.segment import SegmentEncoder, generation_marker
from replicator.format.wal import FrameBuilder, Rebaser, scan, transaction_ends
from replicator.model import DatabaseState, Kind, WalPosition

# zstd level while a writer outruns us: 430 to 1500 MB/s whatever the content, and each byte less
# is one less to hash and to send. Level -7 is a fifth quicker and makes half as much again.
FAST_LEVEL = 1
KEEP_CHANGED, KEEP_OF_CUT = 4096, 8  # pages that changed lately, of all cuts and of one
# What does not simply continue the log, transaction by transaction.
EVENTS = frozenset({Kind.CATCH_UP, Kind.GENERATION, Kind.MERGE_NEWEST})


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the captured log: what the next segment continues."""

    generation: str
    txid: int
    state: DatabaseState
    commit_ms: int
    event: int = 0  # txid of the newest catch-up or start of a generation; 0: none is known


def head_of(record: SegmentRecord) -> Head:
    """The end of a log whose newest segment this is."""
    told = record.metadata.get("last-event") or "0"
    event = record.first_txid if record.kind in EVENTS else int(told)
    return Head(record.generation, record.last_txid, record.state, record.commit_ms, event)


@dataclass(slots=True)
class _Content:
    """What goes into one segment, gathered while its payload passes by."""

    change: HashChange
    ends: list[int] = field(default_factory=list)  # frames up to each commit
    frames: int = 0
    raw_bytes: int = 0
    seen: list[Seen] = field(default_factory=list)  # when which of the frames was there


class Cutter:
    """Makes the next object of the log and puts it into the cache."""

    def __init__(
        self,
        cache: Cache,
        keys: Keys,
        hashes: PageHashes,
        head: Head,
        *,
        level: int,
        created_by: str,
        host: str,
        clock_ms: Callable[[], int],
    ) -> None:
        self._cache = cache
        self._host = host
        self._keys = keys
        self._level = level
        self._created_by = created_by
        self._clock_ms = clock_ms
        self.observations = WalObservations()
        self.changed: deque[int] = deque(maxlen=KEEP_CHANGED)
        self.hashes = hashes
        self.head = head

    def describe(self, kind: Kind, generation: str, first_txid: int) -> ObjectHeader:
        """The header of an object that this writer makes now."""
        return ObjectHeader(
            kind=kind,
            generation=generation,
            first_txid=first_txid,
            page_size=self.hashes.page_size,
            writer=self._cache.writer,
            created_ms=self._now_ms(),
            created_by=self._created_by,
        )

    def cut(self, reader: WalReader, found: Committed, *, fast: bool = False) -> SegmentRecord:
        """Capture ``found`` and advance the reader. ``fast`` spends bytes to save time."""
        content = _Content(HashChange(self.hashes))
        record = self._write(
            Kind.SEGMENT,
            content,
            _slice(reader, found, content, self.observations),
            found.end,
            level=FAST_LEVEL if fast else self._level,
            far=found.far,
        )
        reader.advance(found.end)
        self.observations.captured(found.end)
        self.changed.extend(content.change.pgnos[-KEEP_OF_CUT:].tolist())
        return record

    def notes(self, reason: str = "") -> dict[str, str]:
        """Metadata on which nothing depends: who made an object and why, and where the newest
        one before it is that did not simply continue the log."""
        found = {
            "host": self._host,
            "reason": reason.encode("ascii", "replace").decode()[:400],
            "last-event": str(self.head.event or ""),
        }
        return {name: text for name, text in found.items() if text}

    def catch_up(self, image: Image, reason: str) -> SegmentRecord | None:
        """Append the pages of ``image`` that are not the known ones; None when all are."""
        runs = _with_last(_differing(image, self.hashes))
        first = next(runs, None)
        if first is None and image.pages == self.hashes.pages:
            return None
        if first is None:  # cut off at the end and otherwise the same: a commit needs a page
            first = (page_numbers(1), image.read(1, 1), True)
        content = _Content(HashChange(self.hashes))
        payload = _frames_of(first, runs, image, content)
        return self._write(
            Kind.CATCH_UP, content, payload, image.position, level=self._level, reason=reason
        )

    def mark_generation(
        self, generation: str, hashes: PageHashes, position: WalPosition, reason: str
    ) -> SegmentRecord:
        """Append the marker of a generation whose snapshot is in the store already."""
        self.hashes = hashes
        self.head = replace(self.head, generation=generation)
        header = self.describe(Kind.GENERATION, generation, self.head.txid + 1)
        data, summary = generation_marker(header, state=hashes.state)
        file = self._cache.create_segment()
        try:
            file.write(data)
            record = self._record(summary, position, hashes.checksum, 0, reason)
            self._cache.commit(file, record)
        except BaseException:
            file.discard()
            raise
        return self._captured(record)

    def _write(
        self,
        kind: Kind,
        content: _Content,
        payload: Iterator[bytes],
        end: WalPosition,
        *,
        level: int,
        far: bool = False,
        reason: str = "",
    ) -> SegmentRecord:
        header = self.describe(kind, self.head.generation, self.head.txid + 1)
        encoder = SegmentEncoder(header, level=level, far=far)
        file = self._cache.create_segment()
        before = self.hashes.checksum
        try:
            file.write(encoder.start())
            for piece in payload:
                file.write(encoder.write(piece))
            content.change.apply()
            rest, summary = encoder.finish(
                last_txid=self.head.txid + len(content.ends),
                state=self.hashes.state,
                before=before,
                commit_frames=_differences(content.ends),
                commit_times_ms=commit_times(
                    content.ends, content.seen, least=self.head.commit_ms, now=self._now_ms()
                ),
            )
            file.write(rest)
            record = self._record(summary, end, before, content.raw_bytes, reason)
            self._cache.commit(file, record, change=content.change.to_bytes())
        except BaseException:
            content.change.undo()
            file.discard()
            raise
        return self._captured(record)

    def _now_ms(self) -> int:
        """The time in the log never goes back, whatever the clock does."""
        return max(self._clock_ms(), self.head.commit_ms)

    def _record(
        self, summary: Summary, end: WalPosition, before: int, raw_bytes: int, reason: str
    ) -> SegmentRecord:
        header, trailer = summary.header, summary.trailer
        now = self._clock_ms()
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
            state=self.hashes.state,
            checksum_before=before,
            commit_ms=trailer.last_commit_ms or header.created_ms,
            first_commit_ms=trailer.first_commit_ms or header.created_ms,
            metadata=summary.metadata() | self.notes(reason),
            created_ms=now,
        )

    def _captured(self, record: SegmentRecord) -> SegmentRecord:
        self.head = head_of(record)
        return record


def _slice(
    reader: WalReader, found: Committed, content: _Content, observations: WalObservations
) -> Iterator[bytes]:
    """The re-based WAL file of a run of committed frames."""
    rebaser = Rebaser(found.start)
    yield rebaser.header
    end = found.start
    for batch in reader.batches(found):
        if batch.base != end:  # better no segment than one that cannot be restored
            raise ContinuityLost(f"frame {batch.base.frame + 1} does not follow {end.frame}")
        end = batch.end
        content.change.add(batch.frames, batch.count, batch.data)
        content.ends += [content.frames + n for n in transaction_ends(batch.frames, batch.count)]
        content.seen += [
            (frame - found.start.frame, at_ms) for frame, at_ms in observations.matching(batch)
        ]
        content.frames += batch.count
        piece = rebaser.feed(batch.data, batch.frames, batch.count)
        content.raw_bytes += len(piece)
        yield piece


Run = tuple[U32, bytearray, bool]  # page numbers, their images, whether it is the last


def _differing(image: Image, hashes: PageHashes) -> Iterator[tuple[U32, bytearray]]:
    """Runs of pages whose image is not the known one."""
    size = image.page_size
    step = max(1, CHUNK_BYTES // size)
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
