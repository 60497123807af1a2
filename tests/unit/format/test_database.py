"""The database header, the lock page, and the hashes of pages."""

import random
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from xxhash import xxh3_64_intdigest

from replicator.format.buffers import page_numbers
from replicator.format.database import PageHashes, lock_page, page_hash, parse_database_header
from replicator.format.wal import FrameBuilder, parse_header, scan
from tests.helpers.oracle_wal import Source


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
@pytest.mark.parametrize("auto_vacuum", [0, 1])
def test_header_of_a_database(tmp_path, page_size, auto_vacuum):
    """Page size (65536 is stored as 1), pages, journal mode and auto_vacuum as SQLite says."""
    source = Source(tmp_path, page_size, auto_vacuum=auto_vacuum)
    source.checkpoint("TRUNCATE")
    data, _ = source.files()
    source.close()
    header = parse_database_header(data[:100])
    assert header.page_size == page_size
    assert header.pages == len(data) // page_size
    assert header.wal_mode
    assert header.auto_vacuum == bool(auto_vacuum)


def test_header_of_a_database_with_a_rollback_journal(tmp_path):
    """WAL mode is a fact of the file, told by bytes 18 and 19."""
    path = tmp_path / "plain.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t(x)")
    assert not parse_database_header(path.read_bytes()).wal_mode


def test_what_is_no_database(tmp_path):
    """Too short, another magic, or a page size that cannot be: None."""
    path = tmp_path / "plain.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t(x)")
    data = path.read_bytes()[:100]
    assert parse_database_header(data) is not None
    assert parse_database_header(data[:99]) is None
    assert parse_database_header(b"x" + data[1:]) is None
    assert parse_database_header(data[:16] + b"\x03\xe8" + data[18:]) is None


@pytest.mark.parametrize("page_size", [512 << n for n in range(8)])
def test_lock_page_contains_its_byte(page_size):
    """The first byte of the second gigabyte lies in it."""
    first = (lock_page(page_size) - 1) * page_size
    assert first <= 0x40000000 < first + page_size


def test_page_hash_depends_on_the_number():
    """The same bytes under two numbers are two hashes; seeded XXH3, as the format says."""
    page = bytes(512)
    assert page_hash(7, page) == xxh3_64_intdigest(page, seed=7) != page_hash(8, page)


def some_hashes(pages=70):
    hashes = PageHashes(512)
    hashes.extend(1, random.Random(4).randbytes(512 * pages))
    return hashes


def test_extend_in_pieces_is_extend_at_once():
    """The order and size of the pieces leave no trace; a gap is a mistake."""
    data = random.Random(4).randbytes(512 * 70)
    pieces = PageHashes(512)
    for first in range(0, 70, 7):
        pieces.extend(first + 1, data[first * 512 : (first + 7) * 512])
    assert pieces.to_bytes() == some_hashes().to_bytes()
    with pytest.raises(ValueError, match="page 72 does not follow page 70"):
        pieces.extend(72, data[:512])


def test_the_checksum_is_the_xor_of_the_hashes():
    """Of every page, and of the state."""
    hashes = some_hashes(3)
    data = random.Random(4).randbytes(512 * 3)
    expected = 0
    for n in range(3):
        expected ^= page_hash(n + 1, data[n * 512 : (n + 1) * 512])
    assert hashes.checksum == hashes.state.checksum == expected
    assert hashes.state.pages == 3


def test_put_and_get():
    """What is put is got, and the checksum follows; pages outside are a mistake."""
    hashes = some_hashes(3)
    before = hashes.checksum
    old = hashes.get(page_numbers(2))
    hashes.put(page_numbers(2), np.array([9], np.uint64))
    assert hashes.get(page_numbers(3, 2)).tolist()[1] == 9
    assert hashes.checksum == before ^ int(old[0]) ^ 9
    for wrong in (page_numbers(0), page_numbers(4)):
        with pytest.raises(ValueError, match="outside the database of 3 pages"):
            hashes.put(wrong, np.array([1], np.uint64))


def test_a_copy_lives_on_its_own():
    """Changes of the copy do not reach the original."""
    hashes = some_hashes()
    before = hashes.to_bytes()
    twin = hashes.copy()
    assert twin.to_bytes() == before
    twin.resize(500)
    twin.put(page_numbers(1), np.array([1], np.uint64))
    assert hashes.to_bytes() == before


@pytest.mark.parametrize("pages", [0, 1, 70])
def test_bytes_round_trip(pages):
    """What is written reads back, and can grow on."""
    hashes = some_hashes(pages)
    loaded = PageHashes.from_bytes(hashes.to_bytes())
    assert loaded.to_bytes() == hashes.to_bytes()
    assert (loaded.page_size, loaded.state) == (512, hashes.state)
    loaded.resize(200)
    hashes.resize(200)
    assert loaded.state == hashes.state


def test_damaged_bytes_are_not_trusted():
    """Every flipped bit, every truncation, a byte more: None, never a wrong array."""
    data = some_hashes(4).to_bytes()
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        assert PageHashes.from_bytes(bytes(flipped)) is None
    assert all(PageHashes.from_bytes(data[:n]) is None for n in range(len(data)))
    assert PageHashes.from_bytes(data + b"\0") is None
    assert PageHashes.from_bytes(data + bytes(8)) is None


@pytest.mark.parametrize(("at", "value"), [(12, 3), (16, 1)])
def test_bytes_that_contradict_themselves_are_not_trusted(at, value):
    """A right seal over a wrong number of pages, or a wrong checksum, is no proof."""
    body = bytearray(some_hashes(4).to_bytes()[:-8])
    body[at] = value
    sealed = bytes(body) + xxh3_64_intdigest(body).to_bytes(8, "little")
    assert PageHashes.from_bytes(sealed) is None


def test_frames_without_a_commit_change_nothing():
    """Only a commit takes effect."""
    builder = FrameBuilder(512, salts=(1, 2))
    body = builder.feed(page_numbers(1), bytes(512))
    frames = scan(body, parse_header(builder.header).start())
    hashes = some_hashes(3)
    before = hashes.to_bytes()
    hashes.apply(frames, frames.count, body)
    assert hashes.to_bytes() == before


def test_the_lock_page_counts_as_nothing():
    """Whatever bytes lie there, and though it may be new to the array."""
    lock = lock_page(65536)
    zeros, ones = PageHashes(65536), PageHashes(65536)
    for hashes, content in ((zeros, bytes(65536)), (ones, b"\x01" * 65536)):
        hashes.resize(lock - 1)
        assert hashes.differing(lock, content).tolist() == []
        hashes.extend(lock, content)
    assert zeros.to_bytes() == ones.to_bytes()
    assert ones.differing(lock, b"\x02" * 65536).tolist() == []
