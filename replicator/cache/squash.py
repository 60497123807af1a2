"""Squashing: segments that wait for the store become one that holds the newest images only.

Used when the cache fills up: restore points between them are lost, data is not. The size of the
database bounds the result, however long the store is away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from replicator.cache.cache import Cache
from replicator.cache.records import SegmentRecord
from replicator.errors import ReplicatorError
from replicator.format.integrity import Integrity, place_of
from replicator.format.latest_pages import newest_images
from replicator.format.object_header import ObjectHeader, Summary
from replicator.format.payload import Chunk, decode_frames
from replicator.format.segment import SegmentDecoder, SegmentEncoder
from replicator.model import Kind
from replicator.system.files import OutFile

READ_BYTES = 1 << 20
REASON = "squashed while the store was away"
SQUASHABLE = frozenset({Kind.SEGMENT, Kind.CATCH_UP, Kind.MERGE_NEWEST})


class TooLarge(ReplicatorError):
    """The newest images alone need more room than there is."""

    code = "squash_too_large"


def squashable(waiting: Sequence[SegmentRecord]) -> list[SegmentRecord]:
    """The newest waiting segments that may become one: none was ever offered to the store, and
    none begins a generation. The oldest stays for the uploader, which takes it next."""
    run: list[SegmentRecord] = []
    for record in reversed(waiting[1:]):
        if record.delivery.attempts or record.kind not in SQUASHABLE:
            break
        run.append(record)
    return run[::-1] if len(run) > 1 else []


def squash(
    cache: Cache,
    records: Sequence[SegmentRecord],
    *,
    created_by: str,
    created_ms: int,
    level: int,
    most_bytes: int,
    integrity: Integrity | None = None,
) -> SegmentRecord:
    """Replace ``records``, which follow one another, by one segment.

    ``TooLarge`` when it needs more than ``most_bytes``, ``DamageError`` when one of them is
    damaged, ``Offered`` when the uploader was faster, ``LocalIOError`` from the disk. After any
    error the cache is as before.
    """
    first, last = records[0], records[-1]
    header = ObjectHeader(
        kind=Kind.MERGE_NEWEST,
        generation=first.generation,
        first_txid=first.first_txid,
        page_size=first.end.page_size,
        writer=cache.writer,
        created_ms=max(created_ms, last.commit_ms),
        created_by=created_by,
    )
    file = cache.create_segment()
    try:
        encoder = SegmentEncoder(header, level=level, place=place_of(integrity, first.key))
        summary = _write(file, cache, records, encoder, most_bytes)
        record = _record(summary, first, last)
        cache.commit(file, record, replaces=records)
    except BaseException:
        file.discard()
        raise
    return record


def _write(
    file: OutFile,
    cache: Cache,
    records: Sequence[SegmentRecord],
    encoder: SegmentEncoder,
    most_bytes: int,
) -> Summary:
    """Write the newest image of each page in ``records``."""
    first, last = records[0], records[-1]
    file.write(encoder.start())
    for piece in newest_images(
        lambda: _chunks(cache, records),
        page_size=first.end.page_size,
        salts=(last.end.salt1, last.end.salt2),
    ):
        file.write(encoder.write(piece))
        if file.size > most_bytes:
            raise TooLarge(f"{len(records)} segments need more than {most_bytes} bytes")
    rest, summary = encoder.finish(
        last_txid=last.last_txid,
        state=last.state,
        before=first.checksum_before,
        commit_frames=(),
        commit_times_ms=(first.first_commit_ms, last.commit_ms),
    )
    file.write(rest)
    return summary


def _record(summary: Summary, first: SegmentRecord, last: SegmentRecord) -> SegmentRecord:
    return replace(
        last,
        first_txid=first.first_txid,
        kind=summary.header.kind,
        key=first.key,
        size=summary.size,
        raw_bytes=summary.trailer.payload_bytes,
        sha256=summary.sha256,
        checksum_before=first.checksum_before,
        first_commit_ms=first.first_commit_ms,
        created_ms=summary.header.created_ms,
        metadata=first.metadata | summary.metadata() | {"reason": REASON},
    )


def _chunks(cache: Cache, records: Sequence[SegmentRecord]) -> Iterator[Chunk]:
    """Every frame of the segments, oldest first."""
    for record in records:
        decoder = SegmentDecoder(record.key)
        yield from decode_frames(decoder, _bytes(cache, record))
        decoder.finish()


def _bytes(cache: Cache, record: SegmentRecord) -> Iterator[bytes]:
    source = cache.open_segment(record)
    try:
        for at in range(0, record.size, READ_BYTES):
            yield source.pread(min(READ_BYTES, record.size - at), at)
    finally:
        source.close()
