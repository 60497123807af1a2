"""PageHashes: the hash of every page, and the checksum of all of them."""

import random

import numpy as np
import pytest
from xxhash import xxh3_64_intdigest

from replicator.format.buffers import page_numbers
from replicator.format.database import lock_page
from replicator.format.page_hashes import PageHashes
from tests.helpers.page_hashes import page_hash


def test_page_hash_depends_on_the_number():
    """The same bytes under two numbers have two hashes: seeded XXH3, as in the format."""
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
    """get() returns the hashes of put(), and the checksum follows; pages outside are an error."""
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
    """Written hashes read back, and can grow."""
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


def test_the_lock_page_counts_as_nothing():
    """Its bytes do not matter, and it may be new to the array."""
    lock = lock_page(65536)
    zeros, ones = PageHashes(65536), PageHashes(65536)
    for hashes, content in ((zeros, bytes(65536)), (ones, b"\x01" * 65536)):
        hashes.resize(lock - 1)
        assert hashes.differing(lock, content).tolist() == []
        hashes.extend(lock, content)
    assert zeros.to_bytes() == ones.to_bytes()
    assert ones.differing(lock, b"\x02" * 65536).tolist() == []
