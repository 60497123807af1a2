"""The frames inside an object whose payload is a WAL file, in chunks and verified.

Owns the decoding of an object's bytes into whole frames in bounded memory. Refuses a frame that
does not continue the chain of checksums.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from replicator.format.envelope import damaged
from replicator.format.segment import SegmentDecoder
from replicator.format.wal import FRAME_HEADER_SIZE, HEADER_SIZE, Frames, parse_header, scan
from replicator.model import WalPosition

CHUNK_BYTES = 4 * 1024 * 1024

Chunk: TypeAlias = tuple[bytes, Frames]  # whole frames, and their scan


def decode_frames(
    decoder: SegmentDecoder, source: Iterator[bytes], *, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[Chunk]:
    """The frames of an object in chunks of about ``chunk_bytes``.

    Every frame must verify (``DamageError``). A partial frame at the end is left to the decoder,
    which knows the length of the payload: the caller must call ``decoder.finish()``.
    """
    position = None
    buffer = bytearray()
    for more in _payload(decoder, source, chunk_bytes):
        buffer += more
        if position is None:
            position = _start(decoder, bytes(buffer[:HEADER_SIZE]))
            del buffer[:HEADER_SIZE]
        width = position.page_size + FRAME_HEADER_SIZE
        whole = len(buffer) // width * width
        data = bytes(memoryview(buffer)[:whole])
        frames = scan(data, position)
        if frames.count * width != whole:
            raise damaged(
                decoder.key,
                f"frame {position.frame + frames.count + 1} does not continue its checksums",
                code="checksum_mismatch",
            )
        del buffer[:whole]
        position = frames.position(position, frames.count)
        yield data, frames


def _start(decoder: SegmentDecoder, data: bytes) -> WalPosition:
    header = parse_header(data)
    if header is None or decoder.header is None or (header.page_size != decoder.header.page_size):
        raise damaged(decoder.key, "its payload is not a WAL", code="contradiction")
    return header.start()


def _payload(decoder: SegmentDecoder, source: Iterator[bytes], least_bytes: int) -> Iterator[bytes]:
    """Decompressed bytes in pieces of at least ``least_bytes``, except for the last."""
    held: list[bytes] = []
    size = 0
    for data in source:
        for piece in decoder.pieces(data):
            held.append(piece)
            size += len(piece)
            if size >= least_bytes:
                yield b"".join(held)
                held, size = [], 0
    yield b"".join(held)
