"""Small sound objects of every kind, for the tests of the format."""

import random
import subprocess
from dataclasses import replace

import numpy as np

from replicator.format.envelope import read_header
from replicator.format.object_header import ObjectHeader
from replicator.format.segment import SegmentEncoder, decode_segment, generation_marker
from replicator.format.snapshot_blocks import SnapshotEncoder, compress_block, decode_snapshot
from replicator.format.wal import FrameBuilder
from replicator.model import DatabaseState, Kind

GENERATION = "0190a2b4-0000-7000-8000-0000000000ff"
WRITER = "0190a2b4-0000-7000-8000-00000000000a"
STATE = DatabaseState(pages=9, checksum=0xFEDCBA9876543210)
KEY = "app.db/wal/0000000000000005.wal.zst"


def header(kind=Kind.SEGMENT, **changes):
    base = ObjectHeader(kind, GENERATION, 5, 512, WRITER, 1_700_000_000_000, "replicator 0.1.0")
    return replace(base, **changes)


def wal(*transactions, page_size=512):
    """A log of transactions with so many frames each."""
    rng, builder = random.Random(1), FrameBuilder(page_size, salts=(1, 2))
    out = builder.header
    for count in transactions:
        pgnos = np.arange(1, count + 1, dtype=np.uint32)
        pages = rng.randbytes(40) + bytes(count * page_size - 40)
        out += builder.feed(pgnos, pages, commit=9)
    return out


def encoded(payload, frames=(), times=(), *, last=None, kind=Kind.SEGMENT, **changes):
    encoder = SegmentEncoder(header(kind, **changes), level=3)
    out = encoder.start() + encoder.write(payload[:100]) + encoder.write(payload[100:])
    rest, summary = encoder.finish(
        last_txid=4 + len(frames) if last is None else last,
        state=STATE,
        before=77,
        commit_frames=frames,
        commit_times_ms=times,
    )
    return out + rest, summary


def small_segment():
    return encoded(
        wal(2, 1, 3), (2, 1, 3), (1_700_000_000_001, 1_700_000_000_001, 1_700_000_000_900)
    )


def small_snapshot(frame_pages=4):
    """Nine pages, in frames of four: the encoder leaves the cut to its caller."""
    raw = random.Random(3).randbytes(200) + bytes(9 * 512 - 200)
    encoder = SnapshotEncoder(header(Kind.SNAPSHOT))
    out = encoder.start()
    for at in range(0, len(raw), frame_pages * 512):
        part = raw[at : at + frame_pages * 512]
        out += encoder.add(compress_block(part, 3))
    rest, summary = encoder.finish(last_txid=5, state=STATE)
    return out + rest, summary, raw


def stock(data):
    return subprocess.run(["zstd", "-dcq"], input=data, capture_output=True, check=True).stdout


def decode_any(data, key):
    """Whatever reader is meant for the object; the header decides."""
    kind = read_header(data, key)[0].kind
    return (decode_snapshot if kind is Kind.SNAPSHOT else decode_segment)(data, key)


OBJECTS = {
    "segment": lambda: small_segment()[0],
    "marker": lambda: generation_marker(header(Kind.GENERATION), state=STATE)[0],
    "snapshot": lambda: small_snapshot()[0],
}
