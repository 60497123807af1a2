"""Objects: what goes in comes out, stock tools read it, nothing wrong is made."""

import hashlib
import random
import struct
from dataclasses import replace

import pytest

from replicator.errors import DamageError
from replicator.format import zstd
from replicator.format.envelope import HEADER_LIMIT, Tail, read_header, read_tail
from replicator.format.object_header import parse_metadata
from replicator.format.segment import SegmentDecoder, decode_segment, generation_marker
from replicator.format.snapshot_blocks import (
    SnapshotEncoder,
    compress_block,
    decode_block,
    decode_snapshot,
)
from replicator.format.wal import parse_header, scan
from replicator.model import Kind
from tests.helpers.errors import raises
from tests.helpers.sample_objects import (
    GENERATION,
    KEY,
    OBJECTS,
    STATE,
    WRITER,
    encoded,
    header,
    small_segment,
    small_snapshot,
    stock,
    wal,
)


@pytest.mark.parametrize("pieces", [1, 7, 100, 10**6])
def test_segment_round_trip(pieces):
    """Fed in pieces of any size, a segment gives its payload and the summary of its maker."""
    data, summary = small_segment()
    decoder = SegmentDecoder(KEY)
    payload = b"".join(decoder.feed(data[at : at + pieces]) for at in range(0, len(data), pieces))
    assert payload == wal(2, 1, 3) == stock(data)
    assert decoder.finish() == summary
    assert decode_segment(data, KEY) == (summary, payload)
    assert summary.size == len(data)


def test_a_long_segment_in_large_pieces():
    """Many reads inside the data frame, then the trailer, in uneven pieces."""
    payload = wal(*[3] * 500, page_size=4096)
    data, summary = encoded(payload, [3] * 500, range(1000, 1500), page_size=4096)
    decoder = SegmentDecoder(KEY, limit=len(payload))
    out = b"".join(decoder.feed(data[at : at + 3333]) for at in range(0, len(data), 3333))
    assert out == payload
    assert decoder.finish() == summary


@pytest.mark.parametrize("kind", [Kind.CATCH_UP, Kind.MERGE_NEWEST])
def test_a_segment_without_an_index(kind):
    """One commit may hold many transactions; the times may still be listed."""
    data, summary = encoded(wal(3), (), (5, 6), last=90, kind=kind)
    assert decode_segment(data, KEY)[0] == summary
    assert summary.trailer.commit_frames == ()
    assert summary.trailer.commit_times_ms == (5, 6)


def test_generation_marker():
    """No frames, the snapshot's checksum on both sides, and a log of which SQLite makes
    nothing."""
    data, summary = generation_marker(header(Kind.GENERATION), state=STATE)
    read, payload = decode_segment(data, KEY)
    assert read == summary
    assert summary.trailer.checksum_before == summary.trailer.checksum_after == STATE.checksum
    assert summary.trailer.last_txid == summary.header.first_txid
    assert scan(payload[32:], parse_header(payload).start()).count == 0
    assert stock(data) == payload


def test_snapshot_round_trip():
    """The stock tool sees the database; the seek table leads to every page."""
    data, summary, raw = small_snapshot()
    whole = replace(summary, sha256=hashlib.sha256(data).hexdigest())
    assert decode_snapshot(data, KEY) == (whole, raw)
    assert stock(data) == raw
    tail = read_tail(data, len(data), KEY)
    assert [entry.raw for entry in tail.seek] == [2048, 2048, 512]
    for entry in tail.seek:
        part = decode_block(data[entry.offset : entry.offset + entry.compressed], entry, KEY)
        assert part == raw[entry.raw_offset : entry.raw_offset + entry.raw]


def test_the_seek_table_is_the_one_of_the_zstd_seekable_format():
    """Read by its specification: an entry for every frame, the skippable ones with size 0."""
    data, _, _ = small_snapshot()
    count, descriptor, magic = struct.unpack("<IBI", data[-9:])
    assert (count, descriptor, magic) == (5, 0, 0x8F92EAB1)
    start = len(data) - 9 - 8 * count - 8
    assert struct.unpack_from("<II", data, start) == (0x184D2A5E, 8 * count + 9)
    entries = list(struct.iter_unpack("<II", data[start + 8 : -9]))
    assert sum(compressed for compressed, _ in entries) == start
    assert [raw for _, raw in entries] == [0, 2048, 2048, 512, 0]


def test_a_frame_of_a_snapshot_that_holds_something_else():
    """Fewer bytes than the seek table gives, or none that decompress: damage, by name."""
    data, _, _ = small_snapshot()
    entry = read_tail(data, len(data), KEY).seek[0]
    part = data[entry.offset : entry.offset + entry.compressed]
    for wrong in (zstd.compress_frame(bytes(100), 3), part[:-1], b""):
        with pytest.raises(DamageError) as caught:
            decode_block(wrong, entry, KEY)
        assert caught.value.key == KEY


def test_the_trailer_of_a_lone_commit_is_small():
    """Header and trailer of the smallest segment take less than 250 bytes."""
    data, _ = encoded(wal(1), (1,), (1_700_000_000_000,))
    start = read_header(data, KEY)[1]
    assert start + len(data) - read_tail(data, len(data), KEY).trailer_offset < 250


def test_properties_of_commit_times():
    """First and last, None where there is no commit."""
    trailer = small_segment()[1].trailer
    assert (trailer.first_commit_ms, trailer.last_commit_ms) == (
        1_700_000_000_001,
        1_700_000_000_900,
    )
    marker = generation_marker(header(Kind.GENERATION), state=STATE)[1].trailer
    assert (marker.first_commit_ms, marker.last_commit_ms) == (None, None)


def test_a_long_name_of_the_program_is_cut():
    """The header stays below its limit."""
    data, _ = encoded(wal(1), (1,), (0,), created_by="x" * 1000)
    read, start = read_header(data[:HEADER_LIMIT], KEY)
    assert read.created_by == "x" * 64
    assert start <= HEADER_LIMIT


def test_a_long_index_asks_for_more_bytes():
    """The answer is the number of bytes needed, never more than the object has."""
    rng = random.Random(5)
    frames = [rng.randrange(1, 4) for _ in range(3000)]
    times = sorted(rng.randrange(10**9) for _ in range(3000))
    data, summary = encoded(wal(*frames), frames, times)
    needed = read_tail(data[-100:], len(data), KEY)
    assert isinstance(needed, int)
    assert 100 < needed < len(data)
    assert read_tail(data[-10:], len(data), KEY) == 16
    tail = read_tail(data[-needed:], len(data), KEY)
    assert isinstance(tail, Tail)
    assert tail.trailer == summary.trailer
    assert tail.trailer.commit_times_ms == tuple(times)
    assert tail.trailer_offset == len(data) - needed


def test_a_long_seek_table_asks_for_more_bytes():
    """First for the table and the end of the trailer, then for the trailer."""
    data, _, _ = small_snapshot(frame_pages=1)
    seek = 8 + 11 * 8 + 9
    assert read_tail(data[-20:], len(data), KEY) == seek + 16
    needed = read_tail(data[-(seek + 16) :], len(data), KEY)
    assert read_tail(data[-needed:], len(data), KEY).seek[-1].raw == 512


def test_a_tail_longer_than_the_object_is_damage():
    """The reader never asks for bytes that do not exist."""
    data = OBJECTS["segment"]()
    with raises(DamageError, "truncated", key=KEY):
        read_tail(data[-20:], 100, KEY)
    with raises(DamageError, "truncated", key=KEY):
        read_tail(b"", 0, KEY)


def test_a_tail_of_nonsense_lengths():
    """A trailer shorter than its own fields, or a frame of another length."""
    end = struct.pack("<QI4s", 0, 30, b"RPLE")
    with raises(DamageError, "contradiction", key=KEY):
        read_tail(bytes(200) + end, 216, KEY)


def test_a_segment_that_contradicts_itself_is_not_made():
    """The encoder refuses, before anything reaches a store."""
    with pytest.raises(ValueError, match="does not list every transaction"):
        encoded(wal(2, 1), (2, 1), (1, 2), last=5)
    with pytest.raises(ValueError, match="does not account for every frame"):
        encoded(wal(2, 1), (2, 2), (1, 2))
    with pytest.raises(ValueError, match="whole frames"):
        encoded(wal(2)[:-1], (), (), last=5)
    with pytest.raises(ValueError, match="commit times decrease"):
        encoded(wal(2, 1), (2, 1), (2, 1))


def test_a_snapshot_of_another_size_is_not_made():
    """Its frames must be the pages of the state."""
    encoder = SnapshotEncoder(header(Kind.SNAPSHOT))
    encoder.start()
    encoder.add(compress_block(bytes(512), 3))
    with pytest.raises(ValueError, match="512 bytes are not 9 pages"):
        encoder.finish(last_txid=5, state=STATE)


def test_metadata_round_trip():
    """The store's copy of the facts reads back, also where a server changed the case."""
    for made in (small_segment()[1], small_snapshot()[1]):
        facts = parse_metadata(made.metadata())
        assert parse_metadata({k.title(): v for k, v in made.metadata().items()}) == facts
        assert facts.kind is made.header.kind
        assert (facts.first_txid, facts.last_txid) == (5, made.trailer.last_txid)
        assert facts.generation == GENERATION
        assert facts.writer == WRITER
        assert (facts.page_size, facts.pages) == (512, 9)
        assert facts.checksum_before == made.trailer.checksum_before
        assert facts.checksum_after == made.trailer.checksum_after
        assert facts.created_ms == made.header.created_ms
        assert facts.first_commit_ms == made.trailer.first_commit_ms
        assert facts.last_commit_ms == made.trailer.last_commit_ms
        assert facts.sha256 == made.sha256


@pytest.mark.parametrize(
    "change",
    [
        {"format": "2"},
        {"format": None},
        {"kind": "nonsense"},
        {"kind": None},
        {"pages": "x"},
        {"generation": "x"},
        {"writer": ""},
        {"sha256": "00"},
        {"last-time": "soon"},
        {"checksum-after": "zz"},
        {"sha256": None},
    ],
)
def test_metadata_that_cannot_be_trusted_is_none(change):
    """Absent, of a later format, or not what a field can be."""
    metadata = small_segment()[1].metadata() | change
    assert parse_metadata({k: v for k, v in metadata.items() if v is not None}) is None
    assert parse_metadata({}) is None
