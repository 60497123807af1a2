"""Segments and the other objects whose payload is a WAL file: encoding and verified decoding.

An object is a header frame, one zstd data frame, and a trailer frame; stock zstd decompresses it
to a WAL file. Owns the order of these parts and the checks that cover every bit: encoding takes
one streaming pass, and decoding verifies while it reads. Refuses I/O, and does not look into the
payload: :func:`.wal.scan` verifies the checksum chain of the WAL.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from replicator.errors import DamageError
from replicator.format import zstd
from replicator.format.buffers import Buffer
from replicator.format.envelope import (
    HEADER_LIMIT,
    Tail,
    encode_header,
    encode_trailer,
    naming,
    read_header,
    read_tail,
)
from replicator.format.integrity import Integrity, SealPlace
from replicator.format.limits import DEFAULT_FORMAT_LIMITS, FormatLimits
from replicator.format.object_header import ObjectHeader, Summary, Trailer
from replicator.format.wal import FRAME_HEADER_SIZE, HEADER_SIZE, new_header
from replicator.model import DatabaseState, Kind

# 16 MiB: twice the ratio of a 2 MiB window on small transactions, and a decoder's memory. Half of
# it if no page comes back from far away.
_WINDOW_LOG, _NEAR_WINDOW_LOG = 24, 23
_MARKER_LEVEL = 3


class SegmentEncoder:
    """Makes one object whose payload is a WAL file: start, write …, finish."""

    def __init__(
        self, header: ObjectHeader, *, level: int, far: bool = True, place: SealPlace | None = None
    ) -> None:
        """``far``: pages may come back megabytes later, see :class:`.zstd.StreamCompressor`.
        ``place``: the object gets a seal."""
        self._header = header
        self._place = place
        self._stream = zstd.StreamCompressor(
            level, _WINDOW_LOG if far else _NEAR_WINDOW_LOG, far=far
        )
        self._sha = hashlib.sha256()
        self._size = 0
        self._payload = 0

    def start(self) -> bytes:
        return self._emit(encode_header(self._header))

    def write(self, wal_bytes: Buffer) -> bytes:
        """Add payload. Returns the compressed bytes that are ready, often none."""
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
        """The last bytes, and the facts of the object.

        ``state`` is the database after ``last_txid``, ``before`` its checksum before the first
        transaction. ``commit_frames`` is empty, or holds the number of frames of each
        transaction, in total every frame written. The times must not decrease (``ValueError``).
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
        end = encode_trailer(self._header.kind, trailer)
        rest += self._emit(end if self._place is None else end + self._place.seal(end))
        return rest, Summary(self._header, trailer, self._size, self._sha.hexdigest())

    def _emit(self, data: bytes) -> bytes:
        self._sha.update(data)
        self._size += len(data)
        return data


def _contradiction(header: ObjectHeader, trailer: Trailer) -> str | None:
    """The reason why header and trailer cannot belong to one segment, or None."""
    transactions = trailer.last_txid - header.first_txid + 1
    if transactions < 1:
        return "its last txid is smaller than its first"
    if trailer.commit_frames and len(trailer.commit_frames) != transactions:
        return "its index does not list every transaction"
    frames, rest = divmod(trailer.payload_bytes - HEADER_SIZE, header.page_size + FRAME_HEADER_SIZE)
    if rest or frames < 0:
        return "its payload is not made of whole frames"
    if trailer.commit_frames and sum(trailer.commit_frames) != frames:
        return "its index does not account for every frame"
    return None


def generation_marker(
    header: ObjectHeader, *, state: DatabaseState, place: SealPlace | None = None
) -> tuple[bytes, Summary]:
    """The object that starts a generation at the snapshot of the same txid and ``state``.

    Its payload is a WAL header without frames, from which SQLite recovers nothing.
    """
    encoder = SegmentEncoder(header, level=_MARKER_LEVEL, place=place)
    start = encoder.start() + encoder.write(new_header(header.page_size, salts=(0, 0)).encode())
    rest, summary = encoder.finish(
        last_txid=header.first_txid,
        state=state,
        before=state.checksum,
        commit_frames=(),
        commit_times_ms=(),
    )
    return start + rest, summary


class SegmentDecoder:
    """Verifies one object whose payload is a WAL file, given in pieces of any size.

    The length of the object bounds the payload and the trailer; ``limit`` bounds the payload too
    (``Trailer.payload_bytes``, if the tail was read before). The bytes that :meth:`feed` returns
    are proved only after :meth:`finish` has returned.
    """

    def __init__(
        self,
        key: str,
        *,
        limit: int | None = None,
        limits: FormatLimits = DEFAULT_FORMAT_LIMITS,
        integrity: Integrity | None = None,
    ) -> None:
        self.key = key
        self._integrity = integrity
        self.header: ObjectHeader | None = None
        self._limit = limit
        self._limits = limits
        self._head = b""
        self._stream = zstd.StreamDecompressor()
        self._sha = hashlib.sha256()
        self._before_trailer = 0
        self._payload = 0

    def feed(self, data: Buffer) -> bytes:
        """The payload that these bytes complete. See :meth:`pieces` for bounded memory."""
        return b"".join(self.pieces(data))

    def pieces(self, data: Buffer) -> Iterator[bytes]:
        """The same in pieces of at most 2 MiB. Consume them before the next call."""
        with naming(self.key):
            if self.header is None:
                data = self._begin(data)
            if self.header is None:
                return
            most = self._most_payload(self._before_trailer + len(data))
            for piece in self._stream.feed(data):
                self._payload += len(piece)
                self._check_payload(most)
                yield piece
            self._account(data)

    def _most_payload(self, data_bytes: int) -> int:
        """The most WAL that an object with so many bytes before its trailer can hold."""
        assert self.header is not None  # there is no payload before it
        width = self.header.page_size + FRAME_HEADER_SIZE
        return HEADER_SIZE + width * (data_bytes // self._limits.bytes_a_frame)

    def _check_payload(self, most: int) -> None:
        if self._limit is not None and self._payload > self._limit:
            raise DamageError("it holds more payload than its trailer gives", code="contradiction")
        if self._payload > most:
            raise DamageError(
                f"it holds more than {most} bytes of WAL, which its length does not allow",
                code="beyond_limits",
            )

    def _begin(self, data: Buffer) -> Buffer:
        """Collect the header. Returns the bytes after it, once it is complete."""
        self._head += data
        length = zstd.SKIPPABLE_HEADER_SIZE + int.from_bytes(self._head[4:8], "little")
        if len(self._head) < min(length, HEADER_LIMIT):
            return b""
        self.header, at = read_header(self._head, self.key)
        if self.header.kind is Kind.SNAPSHOT:
            raise DamageError("it is a snapshot, not a segment", code="wrong_kind")
        self._hash(self._head[:at])
        return self._head[at:]

    def _account(self, data: Buffer) -> None:
        """Hash the part of ``data`` that belongs to the data frame; the rest is the trailer."""
        if not self._stream.finished:
            self._hash(data)
        elif (taken := self._end_of_data(data)) > 0:
            self._hash(memoryview(data)[:taken])
        if len(self._stream.rest) > self._most_tail():
            raise DamageError("its trailer does not end", code="contradiction")

    def _most_tail(self) -> int:
        """A transaction takes 8 bytes of the data or more, and at most 12 of the index."""
        return min(self._limits.tail, self._limits.few_tail + 2 * self._before_trailer)

    def _end_of_data(self, data: Buffer) -> int:
        return len(data) - len(self._stream.rest)

    def _hash(self, data: Buffer) -> None:
        self._sha.update(data)
        self._before_trailer += len(data)

    def finish(self) -> Summary:
        """The object's facts. ``DamageError`` unless every byte is as it was written."""
        with naming(self.key):
            if self.header is None or not self._stream.finished:
                raise DamageError("it ends before its trailer", code="truncated")
            size = self._before_trailer + len(self._stream.rest)
            tail = read_tail(self._stream.rest, size, self.key, self._integrity)
            if not isinstance(tail, Tail) or tail.trailer_offset != self._before_trailer:
                raise DamageError("its trailer has an impossible length", code="contradiction")
            self._check(self.header, tail)
            self._sha.update(self._stream.rest)
            return Summary(self.header, tail.trailer, size, self._sha.hexdigest())

    def _check(self, header: ObjectHeader, tail: Tail) -> None:
        trailer = tail.trailer
        if trailer.data_sha256 != self._sha.digest():
            raise DamageError("the SHA-256 of its data does not match", code="checksum_mismatch")
        if (
            trailer.payload_bytes != self._payload
            or tail.kind is not header.kind
            or tail.seek is not None
        ):
            raise DamageError(
                "its header, data and trailer do not belong together", code="contradiction"
            )
        if mistake := _contradiction(header, trailer):
            raise DamageError(mistake, code="contradiction")


def decode_segment(data: bytes, key: str) -> tuple[Summary, bytes]:
    """The facts and the WAL file of a whole object held in memory."""
    tail = read_tail(data, len(data), key)
    limit = tail.trailer.payload_bytes if isinstance(tail, Tail) else 0
    decoder = SegmentDecoder(key, limit=limit)
    payload = decoder.feed(data)
    return decoder.finish(), payload
