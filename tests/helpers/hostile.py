"""Objects as an attacker with write access to a bucket makes them: sealed, and full of claims.

Every checksum of these objects is valid; only the sizes that they claim are absurd.
"""

import hashlib
import struct

import numpy as np
from xxhash import xxh64_intdigest

from replicator.format import zstd
from replicator.format.envelope import encode_header, encode_trailer, read_tail
from replicator.format.object_header import FORMAT_VERSION, Trailer
from replicator.model import Kind
from tests.helpers.sample_objects import KEY, header, small_segment

_BLOCK = 128 * 1024


def zeros_frame(size):
    """A zstd frame of a few bytes that declares and holds ``size`` zeros."""
    whole, rest = divmod(size, _BLOCK)
    sizes = [_BLOCK] * whole + ([rest] if rest else [])
    frame = struct.pack("<IBQ", 0xFD2FB528, 0xE0, size)
    for at, count in enumerate(sizes):
        last = at == len(sizes) - 1
        frame += struct.pack("<I", count << 3 | 1 << 1 | last)[:3] + b"\0"
    return frame


def sealed_trailer(kind, fields, index):
    """A trailer with any figures. ``fields`` follow the order of docs/format.md."""
    content = struct.pack("<4sBBH", b"RPLT", FORMAT_VERSION, kind, 0)
    content += struct.pack("<QIIIIQQQQQ32s", *fields) + index
    length = 8 + len(content) + 16
    frame = zstd.skippable_frame(0xB, content + bytes(8) + struct.pack("<I4s", length, b"RPLE"))
    return frame[:-16] + struct.pack("<Q", xxh64_intdigest(frame[:-16])) + frame[-8:]


def index_bomb(transactions, first=5):
    """A segment of some kilobytes whose index lists so many transactions."""
    data, _ = small_segment()
    tail = read_tail(data, len(data), KEY)
    start = encode_header(header(first_txid=first))
    old = encode_header(header())
    body = start + data[len(old) : tail.trailer_offset]
    index = zeros_frame(4 * transactions + 8 * (transactions - 1))
    trailer = tail.trailer
    fields = (
        first + transactions - 1,
        trailer.pages,
        transactions,
        transactions,
        len(index),
        trailer.checksum_before,
        trailer.checksum_after,
        trailer.payload_bytes,
        0,
        1_700_000_000_000,
        hashlib.sha256(body).digest(),
    )
    return body + sealed_trailer(Kind.SEGMENT, fields, index)


def seek_bomb(entries, txid=5):
    """A snapshot of format 1 whose seek table lists so many blocks of one byte."""
    start = encode_header(header(Kind.SNAPSHOT, first_txid=txid))
    sizes = np.ones((entries, 2), "<u4")
    body = start + bytes(entries)
    table = np.concatenate([np.array([[len(start), 0]], "<u4"), sizes, np.zeros((1, 2), "<u4")])

    def sealed(length):
        table[-1, 0] = length
        seek = zstd.skippable_frame(
            0xE, table.tobytes() + struct.pack("<IBI", len(table), 0, 0x8F92EAB1)
        )
        trailer = Trailer(txid, 1, 0, 0, entries, bytes(32), xxh64_intdigest(seek), (), ())
        return encode_trailer(Kind.SNAPSHOT, trailer), seek

    length = len(sealed(0)[0])
    trailer, seek = sealed(length)
    return body + trailer + seek


def payload_bomb(size):
    """A segment of some kilobytes whose data frame holds so many zeros."""
    data, _ = small_segment()
    start = encode_header(header())
    frame = bytearray(zeros_frame(size))
    frame[4:13] = b"\x00\x68"  # a window of 8 MiB instead of the content size
    tail = read_tail(data, len(data), KEY)
    return start + bytes(frame) + data[tail.trailer_offset :]
