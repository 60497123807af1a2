"""The proof of a restored file: what it compares, and in how much memory."""

import os
import random
import tracemalloc

import pytest

from replicator.format.database import lock_page
from replicator.format.page_hashes import checksum_of_pages
from replicator.recovery.checksum import checksum_of, hash_file
from replicator.recovery.partial import Partial
from replicator.system.files import Files


@pytest.fixture
def opened(tmp_path):
    """Opens a file of these bytes."""
    files = []

    def opened(data):
        path = tmp_path / f"{len(files)}.db"
        path.write_bytes(data)
        files.append(Files().open_read(path))
        return files[-1]

    yield opened
    for file in files:
        file.close()


@pytest.mark.parametrize("pages", [1, 255, 256, 257, 3000])
def test_the_checksum_is_that_of_the_hashes(opened, pages):
    """Whatever lies between two reads; every byte counts, and all bytes are told."""
    data = bytearray(random.Random(pages).randbytes(pages * 4096))
    file, told = opened(data), []
    found = checksum_of(file, 4096, pages, told.append)
    assert found == hash_file(file, 4096, pages, told.append).checksum
    assert sum(told) == 2 * len(data)
    data[random.Random(1).randrange(len(data))] ^= 1
    assert checksum_of(opened(data), 4096, pages, told.append) != found


def test_the_lock_page_counts_as_nothing():
    """As in the log's checksums."""
    lock = lock_page(65536)
    two = checksum_of_pages(65536, lock - 1, b"\x01" * 131072)
    assert two == checksum_of_pages(65536, lock - 1, b"\x01" * 65536 + bytes(65536))
    assert checksum_of_pages(65536, lock, b"\x01" * 65536) == 0


def test_a_file_that_ends_early_is_another_one(opened):
    """It is read as far as it goes."""
    data = random.Random(2).randbytes(3000 * 512)
    whole = checksum_of(opened(data), 512, 3000, lambda _: None)
    assert checksum_of(opened(data[:-512]), 512, 3000, lambda _: None) != whole


def test_the_proof_takes_the_memory_of_a_chunk(opened, tmp_path):
    """The memory does not grow with the pages: 0.6 bytes for each page more at most, not 8."""
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 300_000 * 512)
    with Files().open_read(path) as file:
        tracemalloc.start()
        checksum_of(file, 512, 100_000, lambda _: None)
        few = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        checksum_of(file, 512, 300_000, lambda _: None)
        many = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert many < few + 0.6 * 200_000


@pytest.mark.parametrize(("lines", "kept"), [(1, False), (2, True), (9000, True)])
def test_a_restore_that_noted_a_part_is_kept(tmp_path, lines, kept):
    """The notes are read no further than it takes, for they grow with the database."""
    partial = Partial(tmp_path / "app.db", Files())
    with partial.held():
        partial.begin({}, None)
        partial.clear()
        (partial.directory / "parts").write_bytes(
            (b"x" * 100 + b"\n") * (lines - 1) + b"x" * 70_000 + b"\n"
        )
    assert (partial.directory / "parts").exists() == kept
