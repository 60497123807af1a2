"""From any part of a WAL our reader finds exactly the commits that SQLite recovers."""

import random
import struct

import pytest

from replicator.format.wal import HEADER_SIZE, newest, parse_header, scan
from tests.helpers.oracle_wal import (
    overlay,
    plain_sum,
    read_wal,
    recorded,
    restarted_in_place,
    rewrite_big_endian,
    shrunk,
    spilled_and_rolled_back,
    sqlite_image,
)

STORIES = [spilled_and_rolled_back, restarted_in_place, shrunk]
ORDERS = {"little": lambda wal: wal, "big": rewrite_big_endian}


def our_image(base, wal):
    header = parse_header(wal)
    if header is None:
        return base
    body = memoryview(wal)[HEADER_SIZE:]
    frames = scan(body, header.start())
    images = [
        (
            int(frames.pages[n]),
            int(frames.commits[n]),
            bytes(body[n * header.frame_size + 24 : (n + 1) * header.frame_size]),
        )
        for n in range(frames.committed)
    ]
    return overlay(base, header.page_size, images)


def two_commits(source, rng):
    source.insert(rng, 700)
    source.insert(rng, 100)


@pytest.mark.parametrize("order", ORDERS)
def test_every_byte_prefix_of_a_small_log(tmp_path, order):
    """For each prefix, byte by byte, the committed pages are those SQLite recovers."""
    base, wal = recorded(tmp_path, 512, two_commits)
    wal = ORDERS[order](wal)
    assert read_wal(wal).committed >= 4
    for length in range(len(wal) + 1):
        assert our_image(base, wal[:length]) == sqlite_image(tmp_path, base, wal[:length]), length


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("page_size", [512, 1024, 4096, 65536])
def test_prefixes_around_every_boundary(tmp_path, page_size, story, order):
    """Around the end of every frame, and of its header, the same holds for every page size,
    with spilled, rolled back, shrinking and left-over frames."""
    base, wal = recorded(tmp_path, page_size, story)
    wal = ORDERS[order](wal) if story is not restarted_in_place else wal
    ends = range(HEADER_SIZE, len(wal) + 1, page_size + 24)
    cuts = {end + part + step for end in ends for part in (0, 24) for step in (-1, 0, 1)}
    distinct = set()
    for length in sorted(cut for cut in cuts if cut <= len(wal)):
        ours = our_image(base, wal[:length])
        assert ours == sqlite_image(tmp_path, base, wal[:length]), length
        distinct.add(ours)
    assert len(distinct) >= 3


def test_left_over_frames_of_a_big_endian_log_do_not_count(tmp_path):
    """After a restart of the WAL the older frames behind end the chain in either byte order."""
    base, wal = recorded(tmp_path, 1024, restarted_in_place)
    valid = len(read_wal(wal).frames)
    kept = HEADER_SIZE + valid * 1048
    assert kept < len(wal)
    swapped = rewrite_big_endian(wal) + wal[kept:]
    assert scan(memoryview(swapped)[HEADER_SIZE:], parse_header(swapped).start()).count == valid
    assert our_image(base, swapped) == sqlite_image(tmp_path, base, swapped)


@pytest.mark.parametrize("order", ORDERS)
def test_bit_flips_anywhere(tmp_path, order):
    """One flipped bit anywhere costs us the same transactions as it costs SQLite."""
    base, wal = recorded(tmp_path, 512, two_commits)
    wal = ORDERS[order](wal)
    rng = random.Random(7)
    heads = [
        at * 8 + bit
        for start in (0, HEADER_SIZE, HEADER_SIZE + 536 * 2)
        for at in range(start, start + 32)
        for bit in range(8)
    ]
    for bit in [*heads, *(rng.randrange(8 * len(wal)) for _ in range(300))]:
        flipped = bytearray(wal)
        flipped[bit // 8] ^= 1 << bit % 8
        theirs = sqlite_image(tmp_path, base, flipped)
        if theirs is None:  # a version SQLite does not know; it would not open the database
            assert parse_header(flipped) is None
        else:
            assert our_image(base, flipped) == theirs, bit


def test_a_page_number_of_zero_ends_the_chain(tmp_path):
    """A frame of page 0 ends the chain even with a right checksum, as in SQLite."""
    base, wal = recorded(tmp_path, 512, two_commits)
    header = parse_header(wal)
    frame = bytearray(wal[HEADER_SIZE : header.offset(1)])
    frame[:8] = struct.pack(">2I", 0, 2)
    chain = plain_sum(frame[:8] + frame[24:], False, header.checksum)
    frame[16:24] = struct.pack(">2I", *chain)
    forged = wal[:HEADER_SIZE] + frame
    assert scan(frame, header.start()).count == 0
    assert our_image(base, forged) == sqlite_image(tmp_path, base, forged) == base


@pytest.mark.parametrize("story", STORIES)
def test_scan_agrees_with_the_plain_reader(tmp_path, story):
    """Pages, commit sizes and checksums of every valid frame are those of the definition."""
    _, wal = recorded(tmp_path, 4096, story)
    reading, header = read_wal(wal), parse_header(wal)
    frames = scan(memoryview(wal)[HEADER_SIZE:], header.start())
    assert (frames.count, frames.committed) == (len(reading.frames), reading.committed)
    assert frames.pages.tolist() == [pgno for pgno, _, _ in reading.frames]
    assert frames.commits.tolist() == [commit for _, commit, _ in reading.frames]
    assert [tuple(pair) for pair in frames.checksums.tolist()] == reading.checksums


@pytest.mark.parametrize("story", STORIES)
def test_newest_images_make_the_same_database(tmp_path, story):
    """The newest image of each page, over the base, is what every frame in turn makes."""
    base, wal = recorded(tmp_path, 1024, story)
    reading, header = read_wal(wal), parse_header(wal)
    frames = scan(memoryview(wal)[HEADER_SIZE:], header.start())
    pgnos, indexes = newest(frames, frames.committed)
    size = reading.frames[frames.committed - 1][1]
    merged = [(pgno, 0, reading.frames[at][2]) for pgno, at in zip(pgnos, indexes, strict=True)]
    merged[-1] = (merged[-1][0], size, merged[-1][2])
    assert overlay(base, 1024, merged) == overlay(base, 1024, reading.frames[: frames.committed])
