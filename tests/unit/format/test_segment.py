"""Objects: what goes in comes out, stock tools read it, and every damaged bit is noticed."""

import random
import struct
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from xxhash import xxh64_intdigest

from replicator.errors import DamageError
from replicator.format import segment, zstd
from replicator.format.envelope import encode_seek_table, encode_trailer
from replicator.format.segment import (
    HEADER_LIMIT,
    ObjectHeader,
    SegmentDecoder,
    SegmentEncoder,
    SnapshotEncoder,
    Tail,
    decode_frame,
    decode_segment,
    decode_snapshot,
    generation_marker,
    parse_metadata,
    read_header,
    read_tail,
)
from replicator.format.wal import FrameBuilder, parse_header, scan
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
        last_txid=4 + len(frames) if last is None else last, state=STATE, before=77,
        commit_frames=frames, commit_times_ms=times)
    return out + rest, summary


def small_segment():
    return encoded(wal(2, 1, 3), (2, 1, 3), (1_700_000_000_001, 1_700_000_000_001,
                                             1_700_000_000_900))


def small_snapshot(frame_pages=4):
    """Nine pages, in frames of four: the encoder leaves the cut to its caller."""
    raw = random.Random(3).randbytes(200) + bytes(9 * 512 - 200)
    encoder = SnapshotEncoder(header(Kind.SNAPSHOT))
    out = encoder.start()
    for at in range(0, len(raw), frame_pages * 512):
        part = raw[at:at + frame_pages * 512]
        out += encoder.add(encoder.compress(part, 3), len(part))
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


# ------------------------------------------------------------------------------ round trips

@pytest.mark.parametrize("pieces", [1, 7, 100, 10**6])
def test_segment_round_trip(pieces):
    """Fed in pieces of any size, a segment gives its payload and the summary of its maker."""
    data, summary = small_segment()
    decoder = SegmentDecoder(KEY)
    payload = b"".join(decoder.feed(data[at:at + pieces]) for at in range(0, len(data), pieces))
    assert payload == wal(2, 1, 3) == stock(data)
    assert decoder.finish() == summary
    assert decode_segment(data, KEY) == (summary, payload)
    assert summary.size == len(data)


def test_a_long_segment_in_large_pieces():
    """Many reads inside the data frame, then the trailer, in uneven pieces."""
    payload = wal(*[3] * 500, page_size=4096)
    data, summary = encoded(payload, [3] * 500, range(1000, 1500), page_size=4096)
    decoder = SegmentDecoder(KEY, limit=len(payload))
    out = b"".join(decoder.feed(data[at:at + 3333]) for at in range(0, len(data), 3333))
    assert out == payload
    assert decoder.finish() == summary


@pytest.mark.parametrize("kind", [Kind.CATCH_UP, Kind.MERGE_NEWEST])
def test_a_segment_without_an_index(kind):
    """One commit may stand for many transactions; the times may still be listed."""
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
    assert decode_snapshot(data, KEY) == (summary, raw)
    assert stock(data) == raw
    tail = read_tail(data, len(data), KEY)
    assert [entry.raw for entry in tail.seek] == [2048, 2048, 512]
    for entry in tail.seek:
        part = decode_frame(data[entry.offset:entry.offset + entry.compressed], entry, KEY)
        assert part == raw[entry.raw_offset:entry.raw_offset + entry.raw]


def test_the_seek_table_is_the_one_of_the_zstd_seekable_format():
    """Read by its specification: an entry for every frame, the skippable ones with size 0."""
    data, _, _ = small_snapshot()
    count, descriptor, magic = struct.unpack("<IBI", data[-9:])
    assert (count, descriptor, magic) == (5, 0, 0x8F92EAB1)
    start = len(data) - 9 - 8 * count - 8
    assert struct.unpack_from("<II", data, start) == (0x184D2A5E, 8 * count + 9)
    entries = list(struct.iter_unpack("<II", data[start + 8:-9]))
    assert sum(compressed for compressed, _ in entries) == start
    assert [raw for _, raw in entries] == [0, 2048, 2048, 512, 0]


def test_a_frame_of_a_snapshot_that_holds_something_else():
    """Fewer bytes than the seek table gives, or none that decompress: damage, by name."""
    data, _, _ = small_snapshot()
    entry = read_tail(data, len(data), KEY).seek[0]
    part = data[entry.offset:entry.offset + entry.compressed]
    for wrong in (zstd.compress_frame(bytes(100), 3), part[:-1], b""):
        with pytest.raises(DamageError, match=KEY) as caught:
            decode_frame(wrong, entry, KEY)
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
        1_700_000_000_001, 1_700_000_000_900)
    marker = generation_marker(header(Kind.GENERATION), state=STATE)[1].trailer
    assert (marker.first_commit_ms, marker.last_commit_ms) == (None, None)


def test_a_long_name_of_the_program_is_cut():
    """The header stays below its limit."""
    data, _ = encoded(wal(1), (1,), (0,), created_by="x" * 1000)
    read, start = read_header(data[:HEADER_LIMIT], KEY)
    assert read.created_by == "x" * 64
    assert start <= HEADER_LIMIT


# ----------------------------------------------------------------------------------- damage

@pytest.mark.parametrize("name", OBJECTS)
def test_every_flipped_bit_is_noticed(name):
    """Wherever it is, the error names the object."""
    data = OBJECTS[name]()
    decode_any(data, KEY)
    reader = decode_snapshot if name == "snapshot" else decode_segment
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamageError, match=KEY) as caught:
            reader(bytes(flipped), KEY)
        assert caught.value.key == KEY


@pytest.mark.parametrize("name", OBJECTS)
def test_every_truncation_is_noticed(name):
    """From the front, from the end, and with a byte or a copy of itself behind."""
    data = OBJECTS[name]()
    reader = decode_snapshot if name == "snapshot" else decode_segment
    cut = [data[:n] for n in range(len(data))] + [data[n:] for n in range(1, len(data))]
    for wrong in [*cut, data + b"\0", data + data[-1:], data + data]:
        with pytest.raises(DamageError, match=KEY) as caught:
            reader(wrong, KEY)
        assert caught.value.key == KEY


@pytest.mark.parametrize("name", OBJECTS)
def test_header_and_tail_check_themselves(name):
    """Read alone, without the data between, each notices every flipped bit of its own."""
    data = OBJECTS[name]()
    start = read_header(data, KEY)[1]
    tail = read_tail(data, len(data), KEY)
    for bit in range(8 * start):
        flipped = bytearray(data[:HEADER_LIMIT])
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamageError, match=KEY):
            read_header(flipped, KEY)
    for bit in range(8 * tail.trailer_offset, 8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamageError, match=KEY):
            read_tail(flipped, len(data), KEY)


def byte_by_byte(data):
    decoder = SegmentDecoder(KEY)
    for n in range(len(data)):
        decoder.feed(data[n:n + 1])
    return decoder.finish()


def test_the_streaming_reader_notices_every_flipped_bit():
    """Also when the bytes come one by one and nobody knows where the object ends."""
    data = OBJECTS["marker"]()
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamageError, match=KEY) as caught:
            byte_by_byte(flipped)
        assert caught.value.key == KEY


def reassembled(first, second):
    """The header and data of one object with the trailer of another."""
    cut = [read_tail(data, len(data), KEY).trailer_offset for data in (first, second)]
    return first[:cut[0]] + second[cut[1]:]


def test_parts_of_different_objects_do_not_fit_together():
    """Each part is sound by itself, but was not written with the others."""
    one, two = encoded(wal(2), (2,), (1,))[0], encoded(wal(3), (3,), (1,))[0]
    with pytest.raises(DamageError, match=r"do not match|does not match|do not belong"):
        decode_segment(reassembled(one, two), KEY)
    snapshot, other = small_snapshot()[0], small_snapshot(frame_pages=3)[0]
    with pytest.raises(DamageError, match=KEY):
        decode_snapshot(reassembled(snapshot, other), KEY)


def test_each_reader_refuses_the_other_kind():
    """A snapshot is no segment and a segment no snapshot."""
    with pytest.raises(DamageError, match="a snapshot where a segment belongs"):
        decode_segment(OBJECTS["snapshot"](), KEY)
    with pytest.raises(DamageError, match="not a snapshot"):
        decode_snapshot(OBJECTS["segment"](), KEY)


def test_a_payload_beyond_the_trailer_is_not_decompressed():
    """100 MB of zeros in a frame, a trailer that speaks of 32 bytes: stopped within a slice."""
    stream = zstd.FrameCompressor(3, 20)
    bomb = b"".join(stream.compress(bytes(10**7)) for _ in range(10)) + stream.finish()
    data = OBJECTS["marker"]()
    start, tail = read_header(data, KEY)[1], read_tail(data, len(data), KEY)
    forged = data[:start] + bomb + data[tail.trailer_offset:]
    with pytest.raises(DamageError, match="it holds more than its trailer says"):
        decode_segment(forged, KEY)
    decoder = SegmentDecoder(KEY, limit=32)
    with pytest.raises(DamageError, match="it holds more"):
        next(decoder.pieces(forged[:8000]))


def test_a_trailer_that_does_not_end_is_not_collected(monkeypatch):
    """What follows the data frame is kept in memory only up to the longest possible tail."""
    monkeypatch.setattr(segment, "MAX_TAIL", 1000)
    decoder = SegmentDecoder(KEY)
    decoder.feed(OBJECTS["marker"]())
    with pytest.raises(DamageError, match="its trailer does not end"):
        decoder.feed(bytes(1001))


# --------------------------------------------------------------------------------- versions

def resealed(frame, end):
    """A header or trailer frame with its XXH64 made right again; ``end`` bytes follow it."""
    at = len(frame) - end - 8
    return frame[:at] + struct.pack("<Q", xxh64_intdigest(frame[:at])) + frame[at + 8:]


def changed(data, part, offset, value):
    """An object whose header or trailer says something else at ``offset`` of its content."""
    start = read_header(data, KEY)[1]
    cut = read_tail(data, len(data), KEY).trailer_offset
    header_frame, trailer_frame = bytearray(data[:start]), bytearray(data[cut:])
    frame, end = (header_frame, 0) if part == "header" else (trailer_frame, 8)
    frame[8 + offset] = value
    frame[:] = resealed(bytes(frame), end)
    return bytes(header_frame) + data[start:cut] + bytes(trailer_frame)


@pytest.mark.parametrize("part", ["header", "trailer"])
@pytest.mark.parametrize(("offset", "value", "message"), [
    (4, 2, r"a newer replicator wrote it \(format 2\)"),
    (5, 99, "a newer replicator wrote it"),
    (0, 0, "was not written by a replicator"),
])
def test_what_this_version_does_not_know(part, offset, value, message):
    """Sound, but of a later version, or an unknown kind, or not ours: said in so many words."""
    data = changed(OBJECTS["segment"](), part, offset, value)
    with pytest.raises(DamageError, match=message) as caught:
        decode_segment(data, KEY)
    assert caught.value.key == KEY
    assert ("upgrade" in caught.value.hint) == ("newer" in message)


def with_trailer(data, kind, trailer, seek=b""):
    """An object with another trailer, and a seek table where there was none."""
    cut = read_tail(data, len(data), KEY).trailer_offset
    trailer = replace(trailer, seek_xxh64=xxh64_intdigest(seek) if seek else 0)
    return data[:cut] + encode_trailer(kind, trailer) + seek


def test_a_payload_of_another_length_is_damage():
    """Also where no index counts the frames, and nobody read the tail first."""
    data, summary = encoded(wal(3), last=9, kind=Kind.MERGE_NEWEST)
    for more in (-536, 536):
        trailer = replace(summary.trailer, payload_bytes=32 + 3 * 536 + more)
        decoder = SegmentDecoder(KEY)
        decoder.feed(with_trailer(data, Kind.MERGE_NEWEST, trailer))
        with pytest.raises(DamageError, match="do not belong together"):
            decoder.finish()


def test_a_segment_has_no_seek_table():
    """Though it be right, it does not belong there."""
    data, summary = small_segment()
    cut = read_tail(data, len(data), KEY).trailer_offset
    seek = encode_seek_table([(cut, 0), (len(data) - cut, 0)])
    forged = with_trailer(data, Kind.SEGMENT, summary.trailer, seek)
    assert read_tail(forged, len(forged), KEY).seek == ()
    with pytest.raises(DamageError, match="do not belong together"):
        decode_segment(forged, KEY)


def test_a_snapshot_with_the_trailer_of_another_kind():
    """Right in all its figures, and still not what its header says."""
    data, summary, _ = small_snapshot()
    seek = data[read_tail(data, len(data), KEY).trailer_offset:]
    seek = seek[len(encode_trailer(Kind.SNAPSHOT, summary.trailer)):]
    assert with_trailer(data, Kind.SNAPSHOT, summary.trailer, seek) == data
    with pytest.raises(DamageError, match="not a snapshot"):
        decode_snapshot(with_trailer(data, Kind.MERGE, summary.trailer, seek), KEY)


@pytest.mark.parametrize(("offset", "value"), [(0, 0x5A), (4, 99)])
def test_a_sealed_trailer_in_a_frame_zstd_would_not_skip(offset, value):
    """Its magic and its length are those of a skippable frame of its use."""
    data = changed(OBJECTS["segment"](), "trailer", offset - 8, value)
    with pytest.raises(DamageError, match="its trailer has an impossible length"):
        decode_segment(data, KEY)


@pytest.mark.parametrize(("part", "offset", "value", "message"), [
    ("header", 56, 1, "header contradicts itself"),  # page size
    ("header", 60, 3, "header contradicts itself"),  # length of created_by
    ("trailer", 28, 200, "trailer contradicts itself"),  # size of the index
    ("trailer", 20, 200, "index of transactions has a wrong length"),  # transactions
    ("trailer", 20, 1, "at most"),
    ("trailer", 5, Kind.MERGE, "do not belong together"),
    ("trailer", 48, 1, "do not belong together|more than"),  # payload
    ("trailer", 8, 9, "does not list every transaction"),  # last txid
    ("trailer", 8, 0, "lies before its first"),
])
def test_a_sealed_contradiction_is_damage_too(part, offset, value, message):
    """A right checksum over facts that cannot be true together proves nothing."""
    data = changed(OBJECTS["segment"](), part, offset, value)
    with pytest.raises(DamageError, match=message) as caught:
        decode_segment(data, KEY)
    assert caught.value.key == KEY


def forged_snapshot(frames=None, **facts):
    """A sealed snapshot whose trailer or seek table says something else."""
    data, summary, _ = small_snapshot()
    tail = read_tail(data, len(data), KEY)
    length = len(encode_trailer(Kind.SNAPSHOT, summary.trailer))
    start, sizes = read_header(data, KEY)[1], [(e.compressed, e.raw) for e in tail.seek]
    seek = encode_seek_table([*frames(start, sizes), (length, 0)] if frames else
                             [(start, 0), *sizes, (length, 0)])
    trailer = replace(summary.trailer, seek_xxh64=xxh64_intdigest(seek), **facts)
    return data[:tail.trailer_offset] + encode_trailer(Kind.SNAPSHOT, trailer) + seek


@pytest.mark.parametrize(("forged", "message"), [
    ({"pages": 10}, "does not hold the pages its trailer says"),
    ({"payload_bytes": 10}, "does not hold the pages its trailer says"),
    ({"frames": lambda start, sizes: [(start + 1, 0), (sizes[0][0] - 1, sizes[0][1]), *sizes[1:]]},
     "seek table does not cover its data"),
    ({"frames": lambda start, sizes: [(start + 1, 0), *sizes]}, "length is not the one"),
])
def test_a_sealed_snapshot_that_contradicts_itself(forged, message):
    """Pages, payload and seek table must tell one story."""
    assert decode_snapshot(forged_snapshot(), KEY)[0].trailer == small_snapshot()[1].trailer
    with pytest.raises(DamageError, match=message) as caught:
        decode_snapshot(forged_snapshot(**forged), KEY)
    assert caught.value.key == KEY


# ------------------------------------------------------------------------------------ tails

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
    needed = read_tail(data[-(seek + 16):], len(data), KEY)
    assert read_tail(data[-needed:], len(data), KEY).seek[-1].raw == 512


def test_a_tail_longer_than_the_object_is_damage():
    """Nobody is sent to fetch what does not exist."""
    data = OBJECTS["segment"]()
    with pytest.raises(DamageError, match="shorter than its trailer says"):
        read_tail(data[-20:], 100, KEY)
    with pytest.raises(DamageError, match="shorter than its trailer says"):
        read_tail(b"", 0, KEY)


def test_a_tail_of_nonsense_lengths():
    """A trailer shorter than its own fields, or a frame of another length."""
    end = struct.pack("<QI4s", 0, 30, b"RPLE")
    with pytest.raises(DamageError, match="impossible length"):
        read_tail(bytes(200) + end, 216, KEY)


# -------------------------------------------------------------------------------- mistakes

def test_a_segment_that_contradicts_itself_is_not_made():
    """The maker is told, before anything reaches a store."""
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
    encoder.add(encoder.compress(bytes(512), 3), 512)
    with pytest.raises(ValueError, match="512 bytes are not 9 pages"):
        encoder.finish(last_txid=5, state=STATE)


# -------------------------------------------------------------------------------- metadata

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


@pytest.mark.parametrize("change", [
    {"format": "2"}, {"format": None}, {"kind": "nonsense"}, {"kind": None}, {"pages": "x"},
    {"generation": "x"}, {"writer": ""}, {"sha256": "00"}, {"last-time": "soon"},
    {"checksum-after": "zz"}, {"sha256": None},
])
def test_metadata_that_cannot_be_trusted_is_none(change):
    """Absent, of a later format, or not what a field can be."""
    metadata = small_segment()[1].metadata() | change
    assert parse_metadata({k: v for k, v in metadata.items() if v is not None}) is None
    assert parse_metadata({}) is None
