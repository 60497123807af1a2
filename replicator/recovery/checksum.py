"""Checks a restored file against the checksums in the archive.

Owns the one read of the whole file, and the comparison of its checksum with the one the archive
holds. If the restore stops inside an object, the archive holds no checksum for that transaction;
then the rest of the object is applied to the page hashes alone, and the object's end is compared.
The file itself is only read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from replicator.format.page_hashes import HashChange, PageHashes, checksum_of_pages
from replicator.format.payload import CHUNK_BYTES
from replicator.model import DatabaseState
from replicator.recovery.segment import Segment
from replicator.system.files import RawFile


def checksum_of(file: RawFile, page_size: int, pages: int, advance: Callable[[int], None]) -> int:
    """The database checksum of a file, in the memory of one chunk; calls ``advance`` with the
    bytes of each."""
    checksum = 0
    for first, image in _chunks(file, page_size, pages):
        checksum ^= checksum_of_pages(page_size, first, image)
        advance(len(image))
    return checksum


def hash_file(
    file: RawFile, page_size: int, pages: int, advance: Callable[[int], None]
) -> PageHashes:
    """The same, and the hash of every page: 8 bytes for each."""
    hashes = PageHashes(page_size, room=pages)
    for first, image in _chunks(file, page_size, pages):
        hashes.extend(first, image)
        advance(len(image))
    return hashes


def _chunks(file: RawFile, page_size: int, pages: int) -> Iterator[tuple[int, bytes]]:
    step = max(1, CHUNK_BYTES // page_size)
    for first in range(1, pages + 1, step):
        count = min(step, pages + 1 - first)
        yield first, file.pread(count * page_size, (first - 1) * page_size)


def state_at_end(hashes: PageHashes, segment: Segment, start: int) -> DatabaseState:
    """The state after all of ``segment``, if ``hashes`` is the state after ``start`` frames of it.

    Changes ``hashes``.
    """
    change = HashChange(hashes)
    for _, data, frames in segment.chunks(start):
        change.add(frames, frames.count, data)
    change.apply()
    return hashes.state
