"""The arithmetic of the checksum against its definition, one pair of words at a time."""

import random

import numpy as np
import pytest

from replicator.format.checksum import FrameSums, plain_checksum
from tests.helpers.oracle_wal import plain_sum

PAGE_SIZES = [512 << n for n in range(8)]


def frames(page_size, count):
    width = (page_size + 24) // 4
    data = random.Random(page_size).randbytes(4 * width * count)
    return data, np.frombuffer(data, np.uint32).reshape(count, width)


def summed_parts(data, page_size):
    size = page_size + 24
    return [data[at : at + 8] + data[at + 24 : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("big_endian", [False, True])
def test_the_plain_form_is_the_definition(big_endian):
    """From any seed, in both byte orders, with words that overflow."""
    data = b"\xff" * 64 + random.Random(1).randbytes(64)
    assert plain_checksum(data, big_endian, (5, 2**32 - 1)) == plain_sum(
        data, big_endian, (5, 2**32 - 1)
    )


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_chaining_sums_of_frames_is_the_sequential_checksum(page_size, big_endian):
    """For every page size and a number of frames that is no power of two."""
    data, words = frames(page_size, 7)
    sums = FrameSums.of(page_size)
    chained = sums.chain(sums.data_sums(words, big_endian), (17, 2**32 - 4))
    expected, chain = [], (17, 2**32 - 4)
    for part in summed_parts(data, page_size):
        chain = plain_sum(part, big_endian, chain)
        expected.append(chain)
    assert [tuple(pair) for pair in chained.tolist()] == expected


def test_verify_is_false_where_the_stored_checksum_does_not_follow():
    """A wrong checksum is seen at its own frame and at the one that follows it."""
    _, words = frames(512, 5)
    sums = FrameSums.of(512)
    stored = sums.chain(sums.data_sums(words, False), (1, 2))
    assert sums.verify(words, stored, (1, 2), False).all()
    assert not sums.verify(words, stored, (1, 3), False)[0]
    stored[2, 1] ^= 1
    assert sums.verify(words, stored, (1, 2), False).tolist() == [True, True, False, False, True]


def test_a_chain_of_nothing_is_nothing():
    """No frames, no rows; the seed is not touched."""
    nothing = np.zeros((0, 2), np.uint32)
    assert FrameSums.of(512).chain(nothing, (1, 2)).shape == (0, 2)
