"""Objects: every damaged bit is detected, and so is every sealed contradiction."""

import struct
from dataclasses import replace

import pytest
from xxhash import xxh64_intdigest

from replicator.errors import DamageError, NewerFormat
from replicator.format import zstd
from replicator.format.envelope import (
    HEADER_LIMIT,
    encode_trailer,
    read_header,
    read_tail,
)
from replicator.format.limits import DEFAULT_FORMAT_LIMITS
from replicator.format.seek_table import encode_seek_table
from replicator.format.segment import SegmentDecoder, decode_segment
from replicator.format.snapshot_blocks import decode_snapshot
from replicator.model import Kind
from tests.helpers.errors import raises
from tests.helpers.sample_objects import (
    KEY,
    OBJECTS,
    decode_any,
    encoded,
    small_segment,
    small_snapshot,
    wal,
)


@pytest.mark.parametrize("name", OBJECTS)
def test_every_flipped_bit_is_noticed(name):
    """Wherever it is, the error names the object."""
    data = OBJECTS[name]()
    decode_any(data, KEY)
    reader = decode_snapshot if name == "snapshot" else decode_segment
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamageError) as caught:
            reader(bytes(flipped), KEY)
        assert caught.value.key == KEY


@pytest.mark.parametrize("name", OBJECTS)
def test_every_truncation_is_noticed(name):
    """From the front, from the end, and with a byte or a copy of itself behind."""
    data = OBJECTS[name]()
    reader = decode_snapshot if name == "snapshot" else decode_segment
    cut = [data[:n] for n in range(len(data))] + [data[n:] for n in range(1, len(data))]
    for wrong in [*cut, data + b"\0", data + data[-1:], data + data]:
        with pytest.raises(DamageError) as caught:
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
        with pytest.raises(DamageError) as caught:
            read_header(flipped, KEY)
        assert caught.value.key == KEY
    for bit in range(8 * tail.trailer_offset, 8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamageError) as caught:
            read_tail(flipped, len(data), KEY)
        assert caught.value.key == KEY


def byte_by_byte(data):
    decoder = SegmentDecoder(KEY)
    for n in range(len(data)):
        decoder.feed(data[n : n + 1])
    return decoder.finish()


def test_the_streaming_reader_notices_every_flipped_bit():
    """Also if the bytes arrive one by one and the end of the object is unknown."""
    data = OBJECTS["marker"]()
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamageError) as caught:
            byte_by_byte(flipped)
        assert caught.value.key == KEY


def reassembled(first, second):
    """The header and data of one object with the trailer of another."""
    cut = [read_tail(data, len(data), KEY).trailer_offset for data in (first, second)]
    return first[: cut[0]] + second[cut[1] :]


def test_parts_of_different_objects_do_not_fit_together():
    """Each part is intact, but was written with other parts."""
    one, two = encoded(wal(2), (2,), (1,))[0], encoded(wal(3), (3,), (1,))[0]
    with raises(DamageError, "checksum_mismatch", key=KEY):
        decode_segment(reassembled(one, two), KEY)
    snapshot, other = small_snapshot()[0], small_snapshot(frame_pages=3)[0]
    with raises(DamageError, "checksum_mismatch", key=KEY):
        decode_snapshot(reassembled(snapshot, other), KEY)


def test_each_reader_refuses_the_other_kind():
    """A snapshot is no segment and a segment no snapshot."""
    with raises(DamageError, "wrong_kind", key=KEY):
        decode_segment(OBJECTS["snapshot"](), KEY)
    with raises(DamageError, "wrong_kind", key=KEY):
        decode_snapshot(OBJECTS["segment"](), KEY)


def test_a_payload_beyond_the_trailer_is_not_decompressed():
    """100 MB of zeros in a frame, a trailer that speaks of 32 bytes: stopped within a slice."""
    stream = zstd.StreamCompressor(3, 20)
    bomb = b"".join(stream.compress(bytes(10**7)) for _ in range(10)) + stream.finish()
    data = OBJECTS["marker"]()
    start, tail = read_header(data, KEY)[1], read_tail(data, len(data), KEY)
    forged = data[:start] + bomb + data[tail.trailer_offset :]
    with raises(DamageError, "contradiction", key=KEY):
        decode_segment(forged, KEY)
    decoder = SegmentDecoder(KEY, limit=32)
    with raises(DamageError, "contradiction", key=KEY):
        next(decoder.pieces(forged[:8000]))


def test_a_trailer_that_does_not_end_is_not_collected():
    """Bytes after the data frame stay in memory only up to the longest possible tail."""
    decoder = SegmentDecoder(KEY, limits=replace(DEFAULT_FORMAT_LIMITS, tail=1000))
    decoder.feed(OBJECTS["marker"]())
    with raises(DamageError, "contradiction", key=KEY):
        decoder.feed(bytes(1001))


def resealed(frame, end):
    """A header or trailer frame with its XXH64 made right again; ``end`` bytes follow it."""
    at = len(frame) - end - 8
    return frame[:at] + struct.pack("<Q", xxh64_intdigest(frame[:at])) + frame[at + 8 :]


def changed(data, part, offset, value):
    """An object with another byte at ``offset`` of its header's or trailer's content."""
    start = read_header(data, KEY)[1]
    cut = read_tail(data, len(data), KEY).trailer_offset
    header_frame, trailer_frame = bytearray(data[:start]), bytearray(data[cut:])
    frame, end = (header_frame, 0) if part == "header" else (trailer_frame, 8)
    frame[8 + offset] = value
    frame[:] = resealed(bytes(frame), end)
    return bytes(header_frame) + data[start:cut] + bytes(trailer_frame)


@pytest.mark.parametrize("part", ["header", "trailer"])
@pytest.mark.parametrize(
    ("offset", "value", "code"),
    [(4, 2, "newer_format"), (5, 99, "newer_format"), (0, 0, "not_an_object")],
)
def test_an_unknown_version_or_kind_has_its_own_code(part, offset, value, code):
    """Intact, but of a later version, of an unknown kind, or not written by a replicator."""
    data = changed(OBJECTS["segment"](), part, offset, value)
    with raises(NewerFormat if code == "newer_format" else DamageError, code, key=KEY) as caught:
        decode_segment(data, KEY)
    assert ("upgrade" in caught.value.hint) == (code == "newer_format")


def with_trailer(data, kind, trailer, seek=b""):
    """An object with another trailer, and a seek table where there was none."""
    cut = read_tail(data, len(data), KEY).trailer_offset
    trailer = replace(trailer, seek_xxh64=xxh64_intdigest(seek) if seek else 0)
    return data[:cut] + encode_trailer(kind, trailer) + seek


def test_a_payload_of_another_length_is_damage():
    """Also without an index that counts the frames, and without the tail."""
    data, summary = encoded(wal(3), last=9, kind=Kind.MERGE_NEWEST)
    for more in (-536, 536):
        trailer = replace(summary.trailer, payload_bytes=32 + 3 * 536 + more)
        decoder = SegmentDecoder(KEY)
        decoder.feed(with_trailer(data, Kind.MERGE_NEWEST, trailer))
        with raises(DamageError, "contradiction", key=KEY):
            decoder.finish()


def test_a_segment_has_no_seek_table():
    """Though it be right, it does not belong there."""
    data, summary = small_segment()
    cut = read_tail(data, len(data), KEY).trailer_offset
    seek = encode_seek_table([(cut, 0), (len(data) - cut, 0)])
    forged = with_trailer(data, Kind.SEGMENT, summary.trailer, seek)
    assert read_tail(forged, len(forged), KEY).seek == ()
    with raises(DamageError, "contradiction", key=KEY):
        decode_segment(forged, KEY)


def test_a_snapshot_with_the_trailer_of_another_kind():
    """All its figures are right, but its header has another kind."""
    data, summary, _ = small_snapshot()
    trailer = replace(summary.trailer, blocks=None)  # those only a snapshot has
    sizes = [(entry.compressed, entry.raw) for entry in read_tail(data, len(data), KEY).seek]
    seek = encode_seek_table(
        [(read_header(data, KEY)[1], 0), *sizes, (len(encode_trailer(Kind.MERGE, trailer)), 0)]
    )
    with raises(DamageError, "wrong_kind", key=KEY):
        decode_snapshot(with_trailer(data, Kind.MERGE, trailer, seek), KEY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda packed: packed[64:], "does not list the blocks of its seek table"),
        (lambda packed: packed + packed[:64], "does not list the blocks of its seek table"),
        (lambda packed: packed[:-1], "trailer contradicts itself"),
    ],
)
def test_a_list_of_other_frames(change, message):
    """One entry for each data frame, and whole ones."""
    data, summary, _ = small_snapshot()
    frames = replace(summary.trailer.blocks, packed=change(summary.trailer.blocks.packed))
    trailer = replace(summary.trailer, blocks=frames)
    sizes = [(entry.compressed, entry.raw) for entry in read_tail(data, len(data), KEY).seek]
    seek = encode_seek_table(
        [(read_header(data, KEY)[1], 0), *sizes, (len(encode_trailer(Kind.SNAPSHOT, trailer)), 0)]
    )
    with pytest.raises(DamageError, match=message):
        decode_snapshot(with_trailer(data, Kind.SNAPSHOT, trailer, seek), KEY)


@pytest.mark.parametrize(("offset", "value"), [(0, 0x5A), (4, 99)])
def test_a_sealed_trailer_in_a_frame_zstd_would_not_skip(offset, value):
    """Its magic and its length are those of a skippable frame of its use."""
    data = changed(OBJECTS["segment"](), "trailer", offset - 8, value)
    with raises(DamageError, "contradiction", key=KEY):
        decode_segment(data, KEY)


@pytest.mark.parametrize(
    ("part", "offset", "value", "message"),
    [
        ("header", 56, 1, "header contradicts itself"),  # page size
        ("header", 60, 3, "header contradicts itself"),  # length of created_by
        ("trailer", 28, 200, "trailer contradicts itself"),  # size of the index
        ("trailer", 20, 200, "index of transactions has a wrong length"),  # transactions
        ("trailer", 20, 1, "declares"),
        ("trailer", 5, Kind.MERGE, "do not belong together"),
        ("trailer", 48, 1, "do not belong together|more payload than"),  # payload
        ("trailer", 8, 9, "does not list every transaction"),  # last txid
        ("trailer", 8, 0, "is smaller than its first"),
    ],
)
def test_a_sealed_contradiction_is_damage_too(part, offset, value, message):
    """A right checksum over facts that cannot be true together proves nothing."""
    data = changed(OBJECTS["segment"](), part, offset, value)
    with pytest.raises(DamageError, match=message) as caught:
        decode_segment(data, KEY)
    assert caught.value.key == KEY


def forged_snapshot(sizes_of=None, **facts):
    """A sealed snapshot with another trailer or seek table."""
    data, summary, _ = small_snapshot()
    tail = read_tail(data, len(data), KEY)
    length = len(encode_trailer(Kind.SNAPSHOT, summary.trailer))
    start, sizes = read_header(data, KEY)[1], [(e.compressed, e.raw) for e in tail.seek]
    seek = encode_seek_table(
        [*sizes_of(start, sizes), (length, 0)] if sizes_of else [(start, 0), *sizes, (length, 0)]
    )
    trailer = replace(summary.trailer, seek_xxh64=xxh64_intdigest(seek), **facts)
    return data[: tail.trailer_offset] + encode_trailer(Kind.SNAPSHOT, trailer) + seek


@pytest.mark.parametrize(
    ("forged", "message"),
    [
        ({"pages": 10}, "does not hold the pages its trailer gives"),
        ({"payload_bytes": 10}, "does not hold the pages its trailer gives"),
        (
            {
                "sizes_of": lambda start, sizes: [
                    (start + 1, 0),
                    (sizes[0][0] - 1, sizes[0][1]),
                    *sizes[1:],
                ]
            },
            "seek table does not cover its data",
        ),
        (
            {"sizes_of": lambda start, sizes: [(start + 1, 0), *sizes]},
            "length does not match its seek table",
        ),
    ],
)
def test_a_sealed_snapshot_that_contradicts_itself(forged, message):
    """Pages, payload and seek table must agree."""
    assert decode_snapshot(forged_snapshot(), KEY)[0].trailer == small_snapshot()[1].trailer
    with pytest.raises(DamageError, match=message) as caught:
        decode_snapshot(forged_snapshot(**forged), KEY)
    assert caught.value.key == KEY
