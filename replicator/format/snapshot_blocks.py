"""Snapshots: encoding, decoding, and the proof of their bytes.

The data of a snapshot is a row of blocks: zstd frames of whole pages, each of which decompresses
alone. Owns their order, the seek table's content, and the two ways in which a trailer proves the
data before it: one SHA-256 over all of it (format 1), or one for each block (format 2). With the
second, a snapshot can take blocks of an earlier one without reading them. Refuses I/O.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from xxhash import xxh64_intdigest

from replicator.errors import DamageError
from replicator.format import zstd
from replicator.format.buffers import Buffer
from replicator.format.envelope import (
    Tail,
    damaged,
    encode_digests,
    encode_header,
    encode_trailer,
    read_header,
    read_tail,
)
from replicator.format.integrity import SealPlace
from replicator.format.object_header import BlockDigests, ObjectHeader, Summary, Trailer
from replicator.format.seek_table import SeekEntry, encode_seek_table
from replicator.model import DatabaseState


@dataclass(frozen=True, slots=True)
class Block:
    """One block. ``size`` and ``sha256`` are of its compressed bytes, ``raw`` (bytes) and
    ``pages_sha256`` of its pages. ``data`` is empty if only the store holds the bytes."""

    size: int
    raw: int
    sha256: bytes
    pages_sha256: bytes
    data: bytes = b""


def compress_block(raw: Buffer, level: int, pages_sha256: bytes | None = None) -> Block:
    """One block from pages. Releases the GIL. ``pages_sha256`` saves its computation."""
    data = zstd.compress_frame(raw, level)
    return Block(
        len(data),
        len(raw),
        hashlib.sha256(data).digest(),
        pages_sha256 or hashlib.sha256(raw).digest(),
        data,
    )


class SnapshotEncoder:
    """Makes a snapshot: start, add …, finish.

    It needs only the digests of the blocks, so a block's bytes may come from another object.
    """

    BLOCK_BYTES = 1 << 20  # raw bytes per block, except for the last; whole pages of any size

    def __init__(self, header: ObjectHeader, place: SealPlace | None = None) -> None:
        """``place``: the object gets a seal."""
        self._header = header
        self._place = place
        self._start = encode_header(header)
        self._sizes: list[tuple[int, int]] = [(len(self._start), 0)]
        self._digests = bytearray()

    def start(self) -> bytes:
        return self._start

    def add(self, block: Block) -> bytes:
        """Add the next block, in the order of the pages. Returns its bytes."""
        self._sizes.append((block.size, block.raw))
        self._digests += block.sha256 + block.pages_sha256
        return block.data

    def finish(
        self, *, last_txid: int, state: DatabaseState, sent_ms: int | None = None
    ) -> tuple[bytes, Summary]:
        """The last bytes, and the facts of the object.

        ``sent_ms`` is the time when the oldest block was sent, if blocks come from an earlier
        snapshot. ``ValueError`` if the blocks are not ``state.pages`` pages.
        """
        raw = sum(raw for _, raw in self._sizes)
        if raw != state.pages * self._header.page_size:
            raise ValueError(f"{raw} bytes are not {state.pages} pages")
        digests = BlockDigests(
            self._header.created_ms if sent_ms is None else sent_ms, bytes(self._digests)
        )
        proof = hashlib.sha256(self._start + encode_digests(digests)).digest()
        trailer = Trailer(
            last_txid, state.pages, state.checksum, state.checksum, raw, proof, 0, (), (), digests
        )
        kind = self._header.kind
        length = len(encode_trailer(kind, trailer))
        seek = encode_seek_table([*self._sizes, (length, 0)])
        trailer = replace(trailer, seek_xxh64=xxh64_intdigest(seek))
        end = encode_trailer(kind, trailer)
        rest = end + seek
        if self._place is not None:
            rest += self._place.seal(end, seek)
        size = sum(compressed for compressed, _ in self._sizes) + len(rest)
        return rest, Summary(self._header, trailer, size, "")


class SnapshotProof:
    """Compares the bytes before the trailer with the trailer, in order, in pieces of any size.

    Raises ``DamageError`` at the piece that completes a block with other bytes than written.
    """

    def __init__(self, tail: Tail, key: str) -> None:
        self._key = key
        self._trailer = tail.trailer
        self._sizes = (
            [] if tail.trailer.blocks is None else [entry.compressed for entry in tail.seek or ()]
        )
        self._whole = self._sha = hashlib.sha256()  # of the header (format 1: of all bytes)
        self._left = tail.trailer_offset - sum(self._sizes)  # bytes until the next comparison
        self._ended = 0  # parts completed: the header, then blocks
        self._compared = 0  # blocks whose pages were compared

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
        blocks, number = self._trailer.blocks, self._ended - 1
        if blocks is not None and number >= 0 and self._sha.digest() != blocks.block(number):
            raise self._damaged()
        if blocks is not None and number < 0:
            self._whole.update(encode_digests(blocks))
        if self._ended < len(self._sizes):
            self._left, self._sha = self._sizes[self._ended], hashlib.sha256()
        self._ended += 1

    def pages(self, raw: Buffer) -> None:
        """Compare the pages of the next block. The next snapshot relies on their digest."""
        blocks, number = self._trailer.blocks, self._compared
        self._compared += 1
        if blocks is not None and hashlib.sha256(raw).digest() != blocks.pages(number):
            raise damaged(self._key, "the SHA-256 of its pages does not match", "checksum_mismatch")

    def finish(self) -> None:
        """Check that all bytes were given, and compare their SHA-256."""
        if self._ended <= len(self._sizes) or self._whole.digest() != self._trailer.data_sha256:
            raise self._damaged()

    def _damaged(self) -> DamageError:
        return damaged(self._key, "the SHA-256 of its data does not match", "checksum_mismatch")


def decode_block(data: Buffer, entry: SeekEntry, key: str) -> bytes:
    """The ``entry.raw`` bytes of pages in one block."""
    try:
        raw = zstd.decompress_frame(data, entry.raw)
    except DamageError as error:
        raise damaged(key, str(error), error.code) from error
    if len(raw) != entry.raw:
        raise damaged(key, "a block does not hold the pages its seek table lists", "contradiction")
    return raw


def decode_snapshot(data: bytes, key: str) -> tuple[Summary, bytes]:
    """The facts and the database of a whole snapshot held in memory."""
    header, start = read_header(data, key)
    tail = read_tail(data, len(data), key)
    if not isinstance(tail, Tail) or tail.seek is None or header.kind is not tail.kind:
        raise damaged(key, "it is not a snapshot", "wrong_kind")
    _check_layout(header, start, tail, key)
    proof = SnapshotProof(tail, key)
    proof.update(memoryview(data)[: tail.trailer_offset])
    proof.finish()
    raw = b"".join(
        decode_block(memoryview(data)[entry.offset :][: entry.compressed], entry, key)
        for entry in tail.seek
    )
    return Summary(header, tail.trailer, len(data), hashlib.sha256(data).hexdigest()), raw


def _check_layout(header: ObjectHeader, start: int, tail: Tail, key: str) -> None:
    trailer, seek = tail.trailer, tail.seek or ()
    raw = sum(entry.raw for entry in seek)
    if not raw == trailer.payload_bytes == trailer.pages * header.page_size:
        raise damaged(key, "it does not hold the pages its trailer gives", "contradiction")
    if start + sum(entry.compressed for entry in seek) != tail.trailer_offset:
        raise damaged(key, "its seek table does not cover its data", "contradiction")
