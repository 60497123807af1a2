"""The newest image of each page: which images survive, and where they go.

Owns three uses of one rule: an image counts only if no newer one exists and if its page lies
within every size the database had afterwards.

- :func:`newest_images` merges runs of transactions, read forwards, into one transaction.
- :class:`FrameIndex` finds the frame of each page, for an image of a live database.
- :class:`Overlay` puts a state together from its newest transactions backwards, for a restore.

Refuses I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from replicator.format.buffers import U32, U64, Buffer, Flags, Indexes, page_range
from replicator.format.database import lock_page
from replicator.format.page_hashes import page_hashes
from replicator.format.payload import Chunk
from replicator.format.wal import FRAME_HEADER_SIZE, FrameBuilder, Frames, newest

Run: TypeAlias = tuple[int, memoryview]  # byte offset in the database file, bytes to write there

BATCH_BYTES = 4 * 1024 * 1024  # images copied at once, so that memory stays bounded
ZEROS_BYTES = 4 * 1024 * 1024  # pages of zeros written at once


def newest_images(
    chunks: Callable[[], Iterator[Chunk]],
    *,
    page_size: int,
    salts: tuple[int, int],
    zeros_bytes: int = ZEROS_BYTES,
) -> Iterator[bytes]:
    """A WAL file of one transaction that has the same effect as all frames of ``chunks``.

    ``chunks()`` yields every frame of the runs, oldest first, and is called twice. The last
    frame must end a transaction. A page that was cut off and came back without an image is
    written as zeros, because the base may hold other bytes there. Takes memory for 8 bytes per
    changed page and for one chunk of frames.
    """
    index = FrameIndex()
    total = 0
    for _, frames in chunks():
        index.add(frames, frames.count, total)
        total += frames.count
    if index.size is None or not index.last:
        raise ValueError("there is no image to write")
    builder = FrameBuilder(page_size, salts=salts)
    yield builder.header
    yield from _zeros(builder, index.grown(), page_size, zeros_bytes)
    at = 0
    for data, frames in chunks():
        chosen = index.chosen(at, frames.count)
        commit = index.size if at < index.last <= at + frames.count else 0
        at += frames.count
        rows = np.frombuffer(data, np.uint8).reshape(frames.count, -1)
        images = rows[chosen, FRAME_HEADER_SIZE:].tobytes()
        yield builder.feed(frames.pages[chosen], images, commit=commit)


def _zeros(builder: FrameBuilder, pgnos: U32, page_size: int, most_bytes: int) -> Iterator[bytes]:
    pgnos = pgnos[pgnos != lock_page(page_size)]
    step = max(1, most_bytes // page_size)
    for at in range(0, len(pgnos), step):
        some = pgnos[at : at + step]
        yield builder.feed(some, bytes(len(some) * page_size))


class FrameIndex:
    """Page number → frame (from 1) of its newest committed image. Takes 8 bytes a page."""

    def __init__(self) -> None:
        self._pgnos = np.zeros(0, np.uint32)
        self._frames = np.zeros(0, np.uint32)
        self.size: int | None = None  # database size in pages after the last commit added
        self.smallest: int | None = None  # smallest size that any commit left

    def add(self, frames: Frames, count: int, first: int) -> None:
        """Add the first ``count`` scanned frames, which follow frame ``first`` of the WAL."""
        pgnos, indexes = newest(frames, count)
        keep = ~np.isin(self._pgnos, pgnos, assume_unique=True)
        sizes = frames.sizes(count)
        if sizes is not None:
            self.size = sizes.last
            self.smallest = min(sizes.smallest, self.smallest or sizes.smallest)
            keep &= self._pgnos <= sizes.smallest
        self._merge(keep, pgnos, (indexes + first + 1).astype(np.uint32))

    def _merge(self, keep: Flags, pgnos: U32, frames: U32) -> None:
        pgnos = np.concatenate((self._pgnos[keep], pgnos))
        order = np.argsort(pgnos, kind="stable")
        self._pgnos = pgnos[order]
        self._frames = np.concatenate((self._frames[keep], frames))[order]

    @property
    def pages(self) -> list[int]:
        """The pages that have an image, ascending."""
        return [int(pgno) for pgno in self._pgnos]

    @property
    def last(self) -> int:
        """The last frame that holds a newest image, 0 if there is none."""
        return int(self._frames.max(initial=0))

    def chosen(self, first: int, count: int) -> Indexes:
        """Indexes (ascending, from 0) of the newest images among the ``count`` frames that
        follow frame ``first``."""
        inside = (self._frames > first) & (self._frames <= first + count)
        return np.sort(self._frames[inside]).astype(np.intp) - (first + 1)

    def grown(self) -> U32:
        """Pages beyond the smallest size that have no image.

        The database was cut off before them and grew again over their numbers, so they are
        zeros, whatever their content was before.
        """
        if self.size is None or self.smallest is None:
            return np.zeros(0, np.uint32)
        beyond = page_range(self.smallest + 1, self.size)
        return np.setdiff1d(beyond, self._pgnos, assume_unique=True)

    def within(self, first_pgno: int, count: int) -> list[tuple[int, int]]:
        """(page number, frame) for each of the ``count`` pages from ``first_pgno`` on that has
        an image."""
        low, high = np.searchsorted(self._pgnos, [first_pgno, first_pgno + count])
        return list(
            zip(self._pgnos[low:high].tolist(), self._frames[low:high].tolist(), strict=True)
        )


@dataclass(frozen=True, eq=False, slots=True)
class ChosenFrames:
    """Frames of one segment whose images count: page numbers (ascending), frame indexes."""

    page_size: int
    pgnos: U32
    frames: Indexes

    def images(self, data: Buffer, first_frame: int) -> Iterator[tuple[U32, bytes]]:
        """The images among the whole frames in ``data``: page numbers, and their pages one
        after another. The first frame in ``data`` has the index ``first_frame``."""
        width = self.page_size + FRAME_HEADER_SIZE
        count = len(data) // width
        rows = np.frombuffer(data, np.uint8, count * width).reshape(count, width)
        inside = (self.frames >= first_frame) & (self.frames < first_frame + count)
        pgnos, frames = self.pgnos[inside], self.frames[inside] - first_frame
        step = max(1, BATCH_BYTES // self.page_size)
        for at in range(0, len(pgnos), step):
            batch = rows[frames[at : at + step], FRAME_HEADER_SIZE:]
            yield pgnos[at : at + step], batch.tobytes()


class Overlay:
    """Puts a state together, newest transactions first. Takes one byte a page.

    ``pages`` is the size of the database at the target. A page is *open* until its newest image
    was found, then *settled*. The lock page is never open.
    """

    def __init__(self, page_size: int, pages: int) -> None:
        self.page_size = page_size
        self.limit = pages  # the smallest size of the database from here to the target
        self._settled: Flags = np.zeros(pages + 1, np.bool_)
        if lock_page(page_size) <= pages:
            self._settled[lock_page(page_size)] = True

    def choose(self, frames: Frames, count: int) -> ChosenFrames:
        """Settle the open pages among the first ``count`` frames, which end with a commit."""
        pgnos, indexes = newest(frames, count)
        inside = pgnos <= self.limit
        pgnos, indexes = pgnos[inside], indexes[inside]
        fresh = ~self._settled[pgnos]
        self._settled[pgnos] = True
        sizes = frames.sizes(count)
        if sizes is not None:
            self.limit = min(self.limit, sizes.smallest)
        return ChosenFrames(self.page_size, pgnos[fresh], indexes[fresh])

    def open_runs(self, first_pgno: int, image: Buffer, *, zeros: bool) -> Iterator[Run]:
        """The parts of consecutive pages that are still open. Leaves out pages of zeros unless
        ``zeros``."""
        mask = self._open(first_pgno, image)
        pgnos = page_range(first_pgno, first_pgno + len(mask) - 1)
        return runs(pgnos, image, self.page_size, mask, zeros=zeros)

    def holds(self, first_pgno: int, image: Buffer, hashes: U64) -> bool:
        """True if every page of ``image`` that is still open has the given hash."""
        mask = self._open(first_pgno, image)
        found = page_hashes(self.page_size, first_pgno, image)
        return len(found) == len(hashes) and bool(np.all(found[mask] == hashes[mask]))

    def _open(self, first_pgno: int, image: Buffer) -> Flags:
        count = len(image) // self.page_size
        mask: Flags = np.zeros(count, np.bool_)
        known = self._settled[first_pgno : self.limit + 1][:count]
        mask[: len(known)] = ~known
        return mask


def runs(
    pgnos: U32, images: Buffer, page_size: int, mask: Flags | None = None, *, zeros: bool
) -> Iterator[Run]:
    """Neighbouring pages of ``images`` joined, where ``mask`` allows.

    Leaves out pages of zeros unless ``zeros``: a new file reads as zeros wherever nothing was
    written.
    """
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
