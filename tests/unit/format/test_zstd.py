"""Frames: exact, bounded, and readable by the stock tool."""

import random
import struct
import subprocess

import pytest

from replicator.errors import DamageError
from replicator.format import zstd
from tests.helpers.errors import raises

TEXT = random.Random(1).randbytes(3000) * 3


def stock(data):
    return subprocess.run(["zstd", "-dcq"], input=data, capture_output=True, check=True).stdout


def stream(data, pieces):
    decompressor, out = zstd.StreamDecompressor(), b""
    for at in range(0, len(data), pieces):
        out += b"".join(decompressor.feed(data[at : at + pieces]))
    return decompressor, out


@pytest.mark.parametrize("level", [1, 3, 19])
def test_a_frame_round_trip(level):
    """With its size and checksum, at every level, and twice from one context."""
    for data in (TEXT, b"", TEXT):
        frame = zstd.compress_frame(data, level)
        assert zstd.decompress_frame(frame, len(data)) == data
        assert stock(frame) == data


def test_a_frame_larger_than_allowed_is_refused_unread():
    """Its header has the size; the 100 MB of zeros are never decompressed."""
    bomb = zstd.compress_frame(bytes(10**8), 1)
    with raises(DamageError, "undecodable"):
        zstd.decompress_frame(bomb, 10**8 - 1)


def test_a_frame_that_does_not_tell_its_size_is_refused():
    """Streams are for StreamDecompressor."""
    compressor = zstd.StreamCompressor(3, 20)
    frame = compressor.compress(TEXT) + compressor.finish()
    with raises(DamageError, "undecodable"):
        zstd.decompress_frame(frame, 10**9)


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: f[:-1],
        lambda f: f + b"\0",
        lambda f: f + f,
        lambda f: b"junk",
        lambda f: b"",
        lambda f: f[:-1] + bytes([f[-1] ^ 1]),
    ],
)
def test_a_damaged_frame_is_refused(damage):
    """Cut, followed by something, not a frame at all, or with a wrong checksum."""
    with pytest.raises(DamageError):
        zstd.decompress_frame(damage(zstd.compress_frame(TEXT, 3)), 10**6)


@pytest.mark.parametrize("pieces", [1, 1000, 10**6])
def test_a_stream_round_trip(pieces):
    """In pieces of any size; what follows the frame is kept apart."""
    compressor = zstd.StreamCompressor(3, 24)
    frame = b"".join(compressor.compress(TEXT) for _ in range(3)) + compressor.finish()
    decompressor, out = stream(frame + b"tail" * 500, pieces)
    assert out == TEXT * 3 == stock(frame)
    assert decompressor.finished
    assert decompressor.rest == b"tail" * 500


def test_old_versions_of_a_page_are_found_far_back():
    """Pages that repeat up to 12 MiB later, in another order, cost a seventh at most."""
    rng = random.Random(2)
    pages = [rng.randbytes(4096) for _ in range(1500)]
    compressor = zstd.StreamCompressor(3, 24)
    once = compressor.compress(b"".join(pages))
    rng.shuffle(pages)
    twice = once + compressor.compress(b"".join(pages)) + compressor.finish()
    assert len(twice) < 8 / 7 * 1500 * 4096


def test_nearby_versions_are_found_without_looking_far():
    """Pages that repeat within a megabyte need no large table."""
    rng = random.Random(3)
    pages = b"".join(rng.randbytes(100) + bytes(924) for _ in range(500)) * 3
    sizes = []
    for far in (True, False):
        compressor = zstd.StreamCompressor(3, 24, far=far)
        frame = compressor.compress(pages) + compressor.finish()
        assert stock(frame) == pages
        sizes.append(len(frame))
    assert sizes[1] <= 1.02 * sizes[0]


def test_a_stream_comes_in_bounded_pieces():
    """300 MB of zeros fit in a few kB; no piece is larger than 2 MiB."""
    compressor = zstd.StreamCompressor(3, 20)
    bomb = b"".join(compressor.compress(bytes(10**7)) for _ in range(30)) + compressor.finish()
    assert len(bomb) < 50_000
    sizes = [len(piece) for piece in zstd.StreamDecompressor().feed(bomb)]
    assert sum(sizes) == 3 * 10**8
    assert max(sizes) <= 2 << 20


def test_a_stream_that_wants_a_huge_window_is_refused():
    """2**25 bytes of window are more than any of our streams uses."""
    empty_block = b"\x01\0\0"
    frame = struct.pack("<IBB", 0xFD2FB528, 0, (24 - 10) << 3) + empty_block
    assert b"".join(zstd.StreamDecompressor().feed(frame)) == b""
    frame = struct.pack("<IBB", 0xFD2FB528, 0, (25 - 10) << 3) + empty_block
    with raises(DamageError, "undecodable"):
        list(zstd.StreamDecompressor().feed(frame))


def test_a_damaged_stream_is_refused():
    """By its checksum, at the latest."""
    compressor = zstd.StreamCompressor(3, 20)
    frame = bytearray(compressor.compress(TEXT) + compressor.finish())
    frame[-1] ^= 1
    with raises(DamageError, "undecodable"):
        stream(bytes(frame), 100)


def test_skippable_frames_are_skipped():
    """By the stock tool, and recognised here by their use."""
    frame = zstd.skippable_frame(0xA, b"hello")
    assert stock(frame + zstd.compress_frame(TEXT, 3) + frame) == TEXT
    assert zstd.parse_skippable(frame, 0xA) == len(frame)
    assert zstd.parse_skippable(frame + b"more", 0xA) == len(frame)
    assert zstd.parse_skippable(frame, 0xB) is None
    assert zstd.parse_skippable(frame[:7], 0xA) is None
