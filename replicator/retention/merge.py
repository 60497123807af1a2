"""The bytes of a merge: several segments as one object.

Owns the checks that the sources follow one another without a gap and that the merge equals all of
them. A merge of level 1 keeps every transaction; one above keeps the newest image of each page.
The bytes depend on the sources alone, so that the same merge made twice is the same object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from replicator.archive.index import DIVISIBLE
from replicator.errors import ReplicatorError
from replicator.format.envelope import discontinuous
from replicator.format.integrity import SealPlace
from replicator.format.latest_pages import newest_images
from replicator.format.object_header import ObjectFacts, ObjectHeader, Summary, Trailer
from replicator.format.payload import Chunk, decode_frames
from replicator.format.segment import SegmentDecoder, SegmentEncoder
from replicator.format.wal import HEADER_SIZE, FrameBuilder
from replicator.model import DatabaseState, Kind

PIECE_BYTES = 1 << 20
MERGEABLE = frozenset({Kind.SEGMENT, Kind.CATCH_UP, Kind.MERGE, Kind.MERGE_NEWEST})


@dataclass(frozen=True, slots=True)
class MergeSource:
    """One object to merge; ``read()`` gives its bytes, any number of times."""

    key: str
    first: int
    last: int
    read: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class MergeContent:
    """A source that was read to its end."""

    key: str
    header: ObjectHeader
    trailer: Trailer

    @property
    def facts(self) -> ObjectFacts:
        return ObjectFacts.of(self.header, self.trailer)


class Unmergeable(ReplicatorError):
    """The sources do not make one merge; ``contents`` are those that were read."""

    code = "unmergeable"

    def __init__(self, message: str, contents: Sequence[MergeContent]) -> None:
        super().__init__(message)
        self.contents = tuple(contents)


@dataclass(frozen=True, slots=True)
class Merge:
    """A finished merge. ``contents`` are its sources."""

    body: bytes
    summary: Summary
    contents: tuple[MergeContent, ...]


def merge_all(
    sources: Sequence[MergeSource], *, created_by: str, level: int, place: SealPlace | None = None
) -> Merge:
    """Every transaction of the sources, with a seal if the ``place`` of the merge is given; then
    the sources must be sealed. Memory for one chunk of frames and the result.

    ``DamageError`` names a source; ``Unmergeable`` when they do not belong together.
    """
    contents: list[MergeContent] = []
    out: list[bytes] = []
    encoder: SegmentEncoder | None = None
    builder: FrameBuilder | None = None
    for source in sources:
        decoder = SegmentDecoder(source.key, integrity=None if place is None else place.integrity)
        for data, frames in decode_frames(decoder, _pieces(source.read())):
            assert decoder.header is not None  # there is no frame before it
            if encoder is None or builder is None:
                header = _header(decoder.header, Kind.MERGE, created_by)
                encoder = SegmentEncoder(header, level=level, place=place)
                builder = FrameBuilder(header.page_size, salts=_salts(header))
                out += [encoder.start(), encoder.write(builder.header)]
            if decoder.header.page_size == builder.position.page_size and frames.count:
                out.append(encoder.write(builder.carry(data)))
        summary = decoder.finish()
        contents.append(MergeContent(source.key, summary.header, summary.trailer))
    _check(contents, every=True)
    assert encoder is not None  # _check refuses to merge nothing
    trailers = [content.trailer for content in contents]
    return _finish(
        encoder,
        out,
        contents,
        [n for trailer in trailers for n in trailer.commit_frames],
        [ms for trailer in trailers for ms in trailer.commit_times_ms],
    )


def merge_newest(
    sources: Sequence[MergeSource], *, created_by: str, level: int, place: SealPlace | None = None
) -> Merge:
    """The newest image of each page. The sources are read twice. Otherwise as above."""
    contents: list[MergeContent] = []
    for source in sources:
        decoder = SegmentDecoder(source.key, integrity=None if place is None else place.integrity)
        for piece in _pieces(source.read()):
            for _ in decoder.pieces(piece):
                pass
        summary = decoder.finish()
        contents.append(MergeContent(source.key, summary.header, summary.trailer))
    _check(contents, every=False)
    header = _header(contents[0].header, Kind.MERGE_NEWEST, created_by)
    encoder = SegmentEncoder(header, level=level, place=place)
    out = [encoder.start()]
    if any(content.trailer.payload_bytes > HEADER_SIZE for content in contents):
        out += [
            encoder.write(piece)
            for piece in newest_images(
                lambda: _chunks(sources), page_size=header.page_size, salts=_salts(header)
            )
        ]
    else:  # claims of a take-over, which change nothing
        out.append(encoder.write(FrameBuilder(header.page_size, salts=_salts(header)).header))
    times = [ms for content in contents for ms in content.trailer.commit_times_ms]
    return _finish(encoder, out, contents, [], times[:1] + times[-1:])


def _chunks(sources: Sequence[MergeSource]) -> Iterator[Chunk]:
    for source in sources:
        decoder = SegmentDecoder(source.key)
        for data, frames in decode_frames(decoder, _pieces(source.read())):
            if frames.count:
                yield data, frames
        decoder.finish()


def _pieces(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), PIECE_BYTES):
        yield data[at : at + PIECE_BYTES]


def _header(first: ObjectHeader, kind: Kind, created_by: str) -> ObjectHeader:
    return ObjectHeader(
        kind,
        first.generation,
        first.first_txid,
        first.page_size,
        first.writer,
        first.created_ms,
        created_by,
    )


def _salts(header: ObjectHeader) -> tuple[int, int]:
    return header.first_txid & 0xFFFFFFFF, header.first_txid >> 32


def _check(contents: Sequence[MergeContent], *, every: bool) -> None:
    """``Unmergeable`` unless they follow one another within one generation."""
    for content in contents:
        kind = content.header.kind
        if kind not in (DIVISIBLE if every else MERGEABLE) or (
            every and not content.trailer.commit_frames
        ):
            raise Unmergeable(f"{content.key} cannot be part of such a merge", contents)
    for older, newer in pairwise(contents):
        if (
            newer.header.generation != older.header.generation
            or newer.header.first_txid != older.trailer.last_txid + 1
        ):
            raise Unmergeable(f"{newer.key} does not follow {older.key}", contents)
        if (
            newer.trailer.checksum_before != older.trailer.checksum_after
            or newer.header.page_size != older.header.page_size
        ):
            raise discontinuous(newer.key, older.key)
    if not contents:
        raise Unmergeable("there is nothing to merge", contents)


def _finish(
    encoder: SegmentEncoder,
    out: list[bytes],
    contents: Sequence[MergeContent],
    commit_frames: Sequence[int],
    times: Sequence[int],
) -> Merge:
    first, last = contents[0].trailer, contents[-1].trailer
    rest, summary = encoder.finish(
        last_txid=last.last_txid,
        state=DatabaseState(last.pages, last.checksum_after),
        before=first.checksum_before,
        commit_frames=commit_frames,
        commit_times_ms=times,
    )
    return Merge(b"".join((*out, rest)), summary, tuple(contents))
