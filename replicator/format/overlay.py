"""Which page images make up a state, when the log is read from its newest end.

Owns: the rule that an image counts only if no newer one exists and if its page lies within
every size the database had afterwards, and the cutting of images into runs of pages that can
be written at one offset. Refuses: I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from replicator.format.buffers import U32, U64, Buffer, Indexes
from replicator.format.database import PageHashes, lock_page
from replicator.format.wal import FRAME_HEADER_SIZE, Frames, newest

Run = tuple[int, memoryview]  # byte offset in the database file, and the bytes that go there
Flags = npt.NDArray[np.bool_]

BLOCK_BYTES = 4 * 1024 * 1024  # images are gathered in blocks, so that memory stays bounded


@dataclass(frozen=True, eq=False, slots=True)
class Chosen:
    """Frames of one segment whose images count: page numbers (ascending), frame indexes."""

    page_size: int
    pgnos: U32
    frames: Indexes

    def images(self, data: Buffer, first_frame: int) -> Iterator[tuple[U32, bytes]]:
        """The images among the whole frames in ``data``, the first of which has the index
        ``first_frame``: page numbers, and their pages one after another."""
        width = self.page_size + FRAME_HEADER_SIZE
        count = len(data) // width
        rows = np.frombuffer(data, np.uint8, count * width).reshape(count, width)
        inside = (self.frames >= first_frame) & (self.frames < first_frame + count)
        pgnos, frames = self.pgnos[inside], self.frames[inside] - first_frame
        step = max(1, BLOCK_BYTES // self.page_size)
        for at in range(0, len(pgnos), step):
            block = rows[frames[at : at + step], FRAME_HEADER_SIZE:]
            yield pgnos[at : at + step], block.tobytes()


class Overlay:
    """The state that is put together, newest transactions first; one byte a page.

    ``pages`` is the size of the database at the target. The lock page is never open.
    """

    def __init__(self, page_size: int, pages: int) -> None:
        self.page_size = page_size
        self.limit = pages  # the smallest size of the database from here to the target
        self._settled: Flags = np.zeros(pages + 1, np.bool_)
        if lock_page(page_size) <= pages:
            self._settled[lock_page(page_size)] = True

    def choose(self, frames: Frames, count: int) -> Chosen:
        """Settle the pages that the first ``count`` frames (up to a commit) bring."""
        pgnos, indexes = newest(frames, count)
        inside = pgnos <= self.limit
        pgnos, indexes = pgnos[inside], indexes[inside]
        fresh = ~self._settled[pgnos]
        self._settled[pgnos] = True
        self.limit = min(self.limit, smallest_size(frames, count, self.limit))
        return Chosen(self.page_size, pgnos[fresh], indexes[fresh])

    def open_runs(self, first_pgno: int, image: Buffer, *, zeros: bool) -> Iterator[Run]:
        """The parts of consecutive pages that no newer image has settled. Pages of zeros are
        left out unless asked for."""
        return runs(
            self._pgnos(first_pgno, image),
            image,
            self.page_size,
            self._open(first_pgno, image),
            zeros=zeros,
        )

    def holds(self, first_pgno: int, image: Buffer, hashes: U64) -> bool:
        """Whether every page of ``image`` that is still open has the hash given for it."""
        mask = self._open(first_pgno, image)
        pgnos = self._pgnos(first_pgno, image)
        found = PageHashes(self.page_size).hash_pages(pgnos, image)
        return len(found) == len(hashes) and bool(np.all(found[mask] == hashes[mask]))

    def _pgnos(self, first_pgno: int, image: Buffer) -> U32:
        return np.arange(first_pgno, first_pgno + len(image) // self.page_size, dtype=np.uint32)

    def _open(self, first_pgno: int, image: Buffer) -> Flags:
        count = len(image) // self.page_size
        mask: Flags = np.zeros(count, np.bool_)
        known = self._settled[first_pgno : self.limit + 1][:count]
        mask[: len(known)] = ~known
        return mask


def smallest_size(frames: Frames, count: int, default: int) -> int:
    """The smallest database size that the first ``count`` frames commit."""
    sizes = frames.commits[:count]
    sizes = sizes[sizes != 0]
    return int(sizes.min()) if len(sizes) else default


def join(parts: Sequence[Frames]) -> Frames:
    """Frames of consecutive pieces of one log as if they had been scanned together."""
    commits = np.concatenate([part.commits for part in parts])
    ends = np.flatnonzero(commits)
    return Frames(
        sum(part.count for part in parts),
        int(ends[-1]) + 1 if len(ends) else 0,
        np.concatenate([part.pages for part in parts]),
        commits,
        np.concatenate([part.checksums for part in parts]),
    )


def tail(frames: Frames, count: int) -> Frames:
    """The frames after the first ``count``."""
    committed = max(0, frames.committed - count)
    return Frames(
        frames.count - count,
        committed,
        frames.pages[count:],
        frames.commits[count:],
        frames.checksums[count:],
    )


def runs(
    pgnos: U32, images: Buffer, page_size: int, mask: Flags | None = None, *, zeros: bool
) -> Iterator[Run]:
    """Neighbouring pages of ``images`` joined, where ``mask`` allows; pages of zeros are left
    out unless asked for, for a new file reads as zeros where nothing was written."""
    wanted: Flags = np.ones(len(pgnos), np.bool_) if mask is None else mask.copy()
    if not zeros:
        words = np.frombuffer(images, np.uint64, len(pgnos) * page_size // 8)
        wanted &= words.reshape(len(pgnos), page_size // 8).any(axis=1)
    kept = np.flatnonzero(wanted)
    if not len(kept):
        return
    breaks = np.flatnonzero((np.diff(kept) != 1) | (np.diff(pgnos[kept]) != 1)) + 1
    view = memoryview(images)
    for run in np.split(kept, breaks):
        first, last = int(run[0]), int(run[-1]) + 1
        yield (int(pgnos[first]) - 1) * page_size, view[first * page_size : last * page_size]


def page_hashes(page_size: int, first_pgno: int, image: Buffer) -> U64:
    """The hash of each of the consecutive pages in ``image``."""
    count = len(image) // page_size
    pgnos = np.arange(first_pgno, first_pgno + count, dtype=np.uint32)
    return PageHashes(page_size).hash_pages(pgnos, image)


def checksum_of_pages(page_size: int, first_pgno: int, image: Buffer) -> int:
    """What the consecutive pages in ``image`` contribute to the database checksum."""
    return int(np.bitwise_xor.reduce(page_hashes(page_size, first_pgno, image)))


def pack_hashes(hashes: U64) -> bytes:
    return hashes.astype("<u8").tobytes()


def unpack_hashes(data: bytes) -> U64:
    return np.frombuffer(data, "<u8").astype(np.uint64)
