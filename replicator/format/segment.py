"""Objects of the log: made in one streaming pass, verified while they are read.

An object is a header frame, zstd data frames, a trailer frame, and for a snapshot a seek table;
stock zstd decompresses it to a WAL file (segments, merges, markers) or to the database itself
(snapshots). Owns the order of those parts and the checks that cover every bit. Does no I/O, and
does not look into the payload: the chain of the WAL is for :func:`.wal.scan` to verify.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

from xxhash import xxh64_intdigest

from replicator.errors import DamageError
from replicator.format import zstd
from replicator.format.buffers import Buffer
from replicator.format.envelope import (
    HEADER_LIMIT,
    MAX_TAIL,
    TAIL_LIMIT,
    SeekEntry,
    Tail,
    damaged,
    encode_digests,
    encode_header,
    encode_seek_table,
    encode_trailer,
    read_header,
    read_tail,
)
from replicator.format.objects import (
    FORMAT_VERSION,
    FrameDigests,
    ObjectFacts,
    ObjectHeader,
    Summary,
    Trailer,
    parse_metadata,
)
from replicator.format.snapshot_blocks import DataProof, Frame, compress
from replicator.format.wal import FRAME_HEADER_SIZE, HEADER_SIZE, new_header
from replicator.model import DatabaseState, Kind

__all__ = [
    "FORMAT_VERSION",
    "HEADER_LIMIT",
    "TAIL_LIMIT",
    "Frame",
    "ObjectFacts",
    "ObjectHeader",
    "SeekEntry",
    "SegmentDecoder",
    "SegmentEncoder",
    "SnapshotEncoder",
    "Summary",
    "Tail",
    "Trailer",
    "decode_frame",
    "decode_segment",
    "decode_snapshot",
    "generation_marker",
    "parse_metadata",
    "read_header",
    "read_tail",
]

# 16 MiB: twice the ratio of a 2 MiB window on small transactions, and a decoder's memory. Half of
# it where no page comes back from afar.
_WINDOW_LOG, _NEAR_WINDOW_LOG = 24, 23
_MARKER_LEVEL = 3


class SegmentEncoder:
    """Makes one object whose payload is a WAL file: start, write …, finish."""

    def __init__(self, header: ObjectHeader, *, level: int, far: bool = True) -> None:
        """``far``: pages may come back megabytes later, see :class:`.zstd.FrameCompressor`."""
        self._header = header
        self._stream = zstd.FrameCompressor(
            level, _WINDOW_LOG if far else _NEAR_WINDOW_LOG, far=far
        )
        self._sha = hashlib.sha256()
        self._size = 0
        self._payload = 0

    def start(self) -> bytes:
        return self._emit(encode_header(self._header))

    def write(self, wal_bytes: Buffer) -> bytes:
        """The compressed bytes that are ready, often none."""
        self._payload += len(wal_bytes)
        return self._emit(self._stream.compress(wal_bytes))

    def finish(
        self,
        *,
        last_txid: int,
        state: DatabaseState,
        before: int,
        commit_frames: Sequence[int],
        commit_times_ms: Sequence[int],
    ) -> tuple[bytes, Summary]:
        """The last bytes and what was made.

        ``state`` is the database after ``last_txid``, ``before`` its checksum before the first
        transaction. ``commit_frames`` is empty or accounts for every frame written, one number
        per transaction; the times must not decrease (ValueError).
        """
        rest = self._emit(self._stream.finish())
        trailer = Trailer(
            last_txid,
            state.pages,
            before,
            state.checksum,
            self._payload,
            self._sha.digest(),
            0,
            tuple(commit_frames),
            tuple(commit_times_ms),
        )
        if mistake := _contradiction(self._header, trailer):
            raise ValueError(mistake)
        rest += self._emit(encode_trailer(self._header.kind, trailer))
        return rest, Summary(self._header, trailer, self._size, self._sha.hexdigest())

    def _emit(self, data: bytes) -> bytes:
        self._sha.update(data)
        self._size += len(data)
        return data


def _contradiction(header: ObjectHeader, trailer: Trailer) -> str | None:
    """Why header and trailer cannot belong to one segment, or None."""
    transactions = trailer.last_txid - header.first_txid + 1
    if transactions < 1:
        return "its last txid lies before its first"
    if trailer.commit_frames and len(trailer.commit_frames) != transactions:
        return "its index does not list every transaction"
    frames, rest = divmod(trailer.payload_bytes - HEADER_SIZE, header.page_size + FRAME_HEADER_SIZE)
    if rest or frames < 0:
        return "its payload is not made of whole frames"
    if trailer.commit_frames and sum(trailer.commit_frames) != frames:
        return "its index does not account for every frame"
    return None


def generation_marker(header: ObjectHeader, *, state: DatabaseState) -> tuple[bytes, Summary]:
    """The object that begins a generation on the snapshot of the same txid and ``state``.

    Its payload is a WAL header without frames: SQLite recovers nothing from it.
    """
    encoder = SegmentEncoder(header, level=_MARKER_LEVEL)
    start = encoder.start() + encoder.write(new_header(header.page_size, salts=(0, 0)).encode())
    rest, summary = encoder.finish(
        last_txid=header.first_txid,
        state=state,
        before=state.checksum,
        commit_frames=(),
        commit_times_ms=(),
    )
    return start + rest, summary


class SnapshotEncoder:
    """Makes a snapshot: start, add …, finish. ``compress`` may run in several threads.

    Only the digests of its frames are needed, so that frames may come from somewhere else.
    """

    FRAME_BYTES = 1 << 20  # raw bytes per data frame, but for the last; whole pages of any size

    def __init__(self, header: ObjectHeader) -> None:
        self._header = header
        self._start = encode_header(header)
        self._frames: list[tuple[int, int]] = [(len(self._start), 0)]
        self._digests = bytearray()

    def start(self) -> bytes:
        return self._start

    @staticmethod
    def compress(raw: Buffer, level: int) -> Frame:
        """One data frame; lets other threads run meanwhile."""
        return compress(raw, level)

    def add(self, frame: Frame) -> bytes:
        """The next data frame, in the order of the pages."""
        self._frames.append((frame.size, frame.raw))
        self._digests += frame.sha256 + frame.pages_sha256
        return frame.data

    def finish(
        self, *, last_txid: int, state: DatabaseState, sent_ms: int | None = None
    ) -> tuple[bytes, Summary]:
        """The last bytes and what was made. ``sent_ms``, where frames come from an earlier
        snapshot, is when the oldest of them was sent. ValueError when the frames are not
        ``state.pages`` pages."""
        raw = sum(raw for _, raw in self._frames)
        if raw != state.pages * self._header.page_size:
            raise ValueError(f"{raw} bytes are not {state.pages} pages")
        digests = FrameDigests(
            self._header.created_ms if sent_ms is None else sent_ms, bytes(self._digests)
        )
        proof = hashlib.sha256(self._start + encode_digests(digests)).digest()
        trailer = Trailer(
            last_txid, state.pages, state.checksum, state.checksum, raw, proof, 0, (), (), digests
        )
        kind = self._header.kind
        length = len(encode_trailer(kind, trailer))
        seek = encode_seek_table([*self._frames, (length, 0)])
        trailer = replace(trailer, seek_xxh64=xxh64_intdigest(seek))
        rest = encode_trailer(kind, trailer) + seek
        size = sum(compressed for compressed, _ in self._frames) + len(rest)
        return rest, Summary(self._header, trailer, size, "")


class SegmentDecoder:
    """Verifies one object whose payload is a WAL file, given in pieces of any size.

    ``limit`` bounds the payload (Trailer.payload_bytes, where the tail was read before).
    What :meth:`feed` returned is proved only when :meth:`finish` has returned.
    """

    def __init__(self, key: str, *, limit: int | None = None) -> None:
        self.key = key
        self.header: ObjectHeader | None = None
        self._limit = limit
        self._head = b""
        self._stream = zstd.StreamDecompressor()
        self._sha = hashlib.sha256()
        self._before_trailer = 0
        self._payload = 0

    def feed(self, data: Buffer) -> bytes:
        """The payload these bytes complete, whole; see :meth:`pieces` for bounded memory."""
        return b"".join(self.pieces(data))

    def pieces(self, data: Buffer) -> Iterator[bytes]:
        """The same in pieces of at most 32 MiB; must be consumed before the next call."""
        with _naming(self.key):
            if self.header is None:
                data = self._begin(data)
            if self.header is None:
                return
            for piece in self._stream.feed(data):
                self._payload += len(piece)
                if self._limit is not None and self._payload > self._limit:
                    raise DamageError("it holds more than its trailer says")
                yield piece
            self._account(data)

    def _begin(self, data: Buffer) -> Buffer:
        """Collect the header; the bytes behind it once it is complete."""
        self._head += data
        length = zstd.SKIPPABLE_HEADER_SIZE + int.from_bytes(self._head[4:8], "little")
        if len(self._head) < min(length, HEADER_LIMIT):
            return b""
        self.header, at = read_header(self._head, self.key)
        if self.header.kind is Kind.SNAPSHOT:
            raise DamageError("it is a snapshot where a segment belongs")
        self._hash(self._head[:at])
        return self._head[at:]

    def _account(self, data: Buffer) -> None:
        """Hash what the data frame took of ``data``; the rest is the trailer."""
        if not self._stream.finished:
            self._hash(data)
        elif (taken := self._end_of_data(data)) > 0:
            self._hash(memoryview(data)[:taken])
        if len(self._stream.rest) > MAX_TAIL:
            raise DamageError("its trailer does not end")

    def _end_of_data(self, data: Buffer) -> int:
        return len(data) - len(self._stream.rest)

    def _hash(self, data: Buffer) -> None:
        self._sha.update(data)
        self._before_trailer += len(data)

    def finish(self) -> Summary:
        """The object's facts; its every byte was what was written, or DamageError."""
        with _naming(self.key):
            if self.header is None or not self._stream.finished:
                raise DamageError("it ends before its trailer")
            size = self._before_trailer + len(self._stream.rest)
            tail = read_tail(self._stream.rest, size, self.key)
            if not isinstance(tail, Tail) or tail.trailer_offset != self._before_trailer:
                raise DamageError("its trailer has an impossible length")
            self._check(self.header, tail)
            self._sha.update(self._stream.rest)
            return Summary(self.header, tail.trailer, size, self._sha.hexdigest())

    def _check(self, header: ObjectHeader, tail: Tail) -> None:
        trailer = tail.trailer
        if trailer.data_sha256 != self._sha.digest():
            raise DamageError("the SHA-256 of its data does not match")
        if (
            trailer.payload_bytes != self._payload
            or tail.kind is not header.kind
            or tail.seek is not None
        ):
            raise DamageError("its header, data and trailer do not belong together")
        if mistake := _contradiction(header, trailer):
            raise DamageError(mistake)


@contextlib.contextmanager
def _naming(key: str) -> Iterator[None]:
    """Errors raised inside name the object."""
    try:
        yield
    except DamageError as error:
        if error.key:
            raise
        raise damaged(key, str(error)) from error


def decode_segment(data: bytes, key: str) -> tuple[Summary, bytes]:
    """A whole object whose payload is a WAL file, and that payload."""
    tail = read_tail(data, len(data), key)
    limit = tail.trailer.payload_bytes if isinstance(tail, Tail) else 0
    decoder = SegmentDecoder(key, limit=limit)
    payload = decoder.feed(data)
    return decoder.finish(), payload


def decode_frame(data: Buffer, entry: SeekEntry, key: str) -> bytes:
    """The ``entry.raw`` bytes of pages in one data frame of a snapshot."""
    with _naming(key):
        raw = zstd.decompress_frame(data, entry.raw)
        if len(raw) != entry.raw:
            raise DamageError("a data frame does not hold the pages its seek table gives")
        return raw


def decode_snapshot(data: bytes, key: str) -> tuple[Summary, bytes]:
    """A whole snapshot held in memory, and the database it holds."""
    header, start = read_header(data, key)
    tail = read_tail(data, len(data), key)
    if not isinstance(tail, Tail) or tail.seek is None or header.kind is not tail.kind:
        raise damaged(key, "it is not a snapshot")
    _check_snapshot(data, header, start, tail, key)
    raw = b"".join(
        decode_frame(memoryview(data)[entry.offset : entry.offset + entry.compressed], entry, key)
        for entry in tail.seek
    )
    return Summary(header, tail.trailer, len(data), hashlib.sha256(data).hexdigest()), raw


def _check_snapshot(data: bytes, header: ObjectHeader, start: int, tail: Tail, key: str) -> None:
    trailer, seek = tail.trailer, tail.seek or ()
    raw = sum(entry.raw for entry in seek)
    if not raw == trailer.payload_bytes == trailer.pages * header.page_size:
        raise damaged(key, "it does not hold the pages its trailer says")
    if start + sum(entry.compressed for entry in seek) != tail.trailer_offset:
        raise damaged(key, "its seek table does not cover its data")
    proof = DataProof(tail, key)
    proof.update(memoryview(data)[: tail.trailer_offset])
    proof.finish()
