"""Sizes that an object claims are compared with its length before anything is allocated."""

from dataclasses import replace

import numpy as np
import pytest

from replicator.errors import DamageError
from replicator.format.envelope import encode_header, encode_trailer, read_header, read_tail
from replicator.format.limits import DEFAULT_FORMAT_LIMITS
from replicator.format.numbers import Numbers
from replicator.format.object_header import parse_metadata
from replicator.format.seek_table import SeekEntry, encode_seek_table, parse_seek_table
from replicator.format.segment import SegmentDecoder, SegmentEncoder, decode_segment
from replicator.format.transaction_index import IndexClaims, encode_index, parse_index
from replicator.format.wal import FrameBuilder
from replicator.model import DatabaseState, Kind
from tests.helpers.errors import raises
from tests.helpers.hostile import index_bomb, payload_bomb, seek_bomb
from tests.helpers.memory import memory_limit
from tests.helpers.sample_objects import KEY, header, small_segment

FEW_BYTES = 32 << 20


@pytest.mark.parametrize("transactions", [70_000, 25_000_000, 300_000_000])
def test_an_index_beyond_the_length_of_its_object(transactions):
    """Ten kilobytes that list millions of transactions are refused in little memory."""
    data = index_bomb(transactions)
    with memory_limit(FEW_BYTES), raises(DamageError, "beyond_limits", key=KEY):
        read_tail(data, len(data), KEY)
    with memory_limit(FEW_BYTES), raises(DamageError, "beyond_limits", key=KEY):
        decode_segment(data, KEY)


def test_a_payload_beyond_the_length_of_its_object():
    """A gigabyte of zeros in some kilobytes ends the decoder after few of them."""
    data = payload_bomb(1 << 30)
    decoder = SegmentDecoder(KEY)
    with memory_limit(FEW_BYTES), raises(DamageError, "beyond_limits", key=KEY):
        for _ in decoder.pieces(data):
            pass


def test_a_seek_table_beyond_every_database():
    """Its last nine bytes claim more blocks than any snapshot has: no more of it is read."""
    data = seek_bomb(DEFAULT_FORMAT_LIMITS.blocks + 1)
    with memory_limit(FEW_BYTES), raises(DamageError, "beyond_limits", key=KEY):
        read_tail(data[-64:], len(data), KEY)


def test_blocks_without_bytes():
    """A seek table with blocks smaller than any zstd frame is refused."""
    data = seek_bomb(1000)
    with raises(DamageError, "contradiction", key=KEY):
        read_tail(data, len(data), KEY)


def test_a_large_seek_table_takes_the_memory_of_its_bytes():
    """A million blocks: 8 MB of table, 24 MB as values, and not a hundred bytes each."""
    sizes = [(100, 4096)] * 1_000_000
    seek = encode_seek_table(sizes)
    with memory_limit(80 << 20):
        table = parse_seek_table(seek, 100_000_000 + len(seek))
        assert sum(entry.raw for entry in table) == table.raw_bytes == 4_096_000_000
    assert table[-1] == SeekEntry(99_999_900, 100, 4_095_995_904, 4096)
    assert table[1:3] == (SeekEntry(100, 100, 4096, 4096), SeekEntry(200, 100, 8192, 4096))
    assert (table.largest, table.compressed_bytes) == (4096, 100_000_000)
    assert table.whole_pages(512)
    assert not table.whole_pages(8192)


def test_the_densest_log_is_far_from_the_limit():
    """One page of zeros, changed by nothing, ten thousand times: the smallest frames there are."""
    builder = FrameBuilder(512, salts=(1, 2))
    encoder = SegmentEncoder(header(), level=19)
    body = encoder.start() + encoder.write(builder.header)
    for _ in range(100):
        pages = np.ones(100, np.uint32)
        body += encoder.write(builder.feed(pages, bytes(51_200), commit=1))
    frames = 100 * 100
    rest, _ = encoder.finish(
        last_txid=4 + 100,
        state=DatabaseState(pages=1, checksum=0),
        before=0,
        commit_frames=[100] * 100,
        commit_times_ms=range(100),
    )
    data = body + rest
    assert len(data) > 1.9 * DEFAULT_FORMAT_LIMITS.bytes_a_frame * frames
    decode_segment(data, KEY)


@pytest.mark.parametrize(
    ("times", "first"),
    [
        ((0, 1 << 62), 1),
        ((0, (1 << 63) - 1), 5),
        ((0,), 253_402_300_800_000),
        ((0, 10), 253_402_300_799_995),
    ],
)
def test_times_that_have_no_text(times, first):
    """Commit times beyond the year 9999 are refused, and do not wrap around."""
    index = encode_index((), times)
    with raises(DamageError, "beyond_limits"):
        parse_index(index, IndexClaims(0, len(times), first), 1000)


def test_facts_beyond_every_archive():
    """Txids and times that no archive reaches, under valid checksums."""
    for wrong in (header(first_txid=1 << 63), header(created_ms=1 << 48)):
        with raises(DamageError, "beyond_limits", key=KEY):
            read_header(encode_header(wrong), KEY)
    trailer = small_segment()[1].trailer
    forged = encode_trailer(Kind.SEGMENT, replace(trailer, last_txid=1 << 63))
    with raises(DamageError, "beyond_limits", key=KEY):
        read_tail(forged, len(forged), KEY)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("last-txid", "9" * 5000),
        ("last-txid", str(1 << 63)),
        ("first-txid", "-1"),
        ("first-txid", "٣"),
        ("pages", "1_0"),
        ("pages", str(1 << 32)),
        ("page-size", "131072"),
        ("checksum-after", "0x" + "f" * 14),
        ("checksum-before", "f" * 17),
        ("created", str(1 << 60)),
        ("last-time", "253402300800000"),
        ("last-event", "inf"),
        ("format", "9" * 5000),
    ],
)
def test_metadata_beyond_every_archive_counts_as_absent(name, value):
    """Metadata is a hint; an impossible one is none."""
    metadata = small_segment()[1].metadata()
    assert parse_metadata(metadata) is not None
    assert parse_metadata(metadata | {name: value}) is None


def test_numbers_behave_like_a_tuple():
    """Equality, slices, sums, and a text that does not list millions of them."""
    numbers = Numbers(np.array([3, 1, 2], np.uint32))
    assert numbers == (3, 1, 2) == tuple(numbers)
    assert numbers != (3, 1)
    assert numbers != (3, 1, 4)
    assert numbers != 3
    assert (numbers[-1], numbers[:2], numbers.totals()) == (2, [3, 1], (3, 4, 6))
    assert Numbers.of((3, 1, 2)) == numbers == Numbers.of(numbers)
    assert hash(numbers) == hash((3, 1, 2))
    assert "3" in repr(numbers)
    assert not Numbers.of(())
