"""Where the newest image of each page lies in a log: what to lay over the database file."""

from __future__ import annotations

import numpy as np

from replicator.format.buffers import U32, Indexes
from replicator.format.wal import Frames, newest


class Placement:
    """Page number → frame (from 1) of its newest committed image. 8 bytes a page."""

    def __init__(self) -> None:
        self._pgnos = np.zeros(0, np.uint32)
        self._frames = np.zeros(0, np.uint32)
        self.size: int | None = None  # database size in pages after the last commit added
        self.smallest: int | None = None  # that any commit left it with

    def add(self, frames: Frames, count: int, first: int) -> None:
        """The first ``count`` scanned frames, which lie in the log right after frame ``first``."""
        pgnos, indexes = newest(frames, count)
        sizes = frames.commits[:count]
        sizes = sizes[sizes != 0]
        keep = ~np.isin(self._pgnos, pgnos, assume_unique=True)
        if len(sizes):
            self.size, smallest = int(sizes[-1]), int(sizes.min())
            self.smallest = min(smallest, self.smallest or smallest)
            keep &= self._pgnos <= smallest
        self._merge(keep, pgnos, (indexes + first + 1).astype(np.uint32))

    def _merge(
        self, keep: np.ndarray[tuple[int], np.dtype[np.bool_]], pgnos: U32, frames: U32
    ) -> None:
        pgnos = np.concatenate((self._pgnos[keep], pgnos))
        order = np.argsort(pgnos, kind="stable")
        self._pgnos = pgnos[order]
        self._frames = np.concatenate((self._frames[keep], frames))[order]

    @property
    def last(self) -> int:
        """The last frame that holds a newest image, 0 if there is none."""
        return int(self._frames.max(initial=0))

    def chosen(self, first: int, count: int) -> Indexes:
        """Which of ``count`` frames that lie right after frame ``first`` hold a newest image:
        ascending, from 0."""
        inside = (self._frames > first) & (self._frames <= first + count)
        return np.sort(self._frames[inside]).astype(np.intp) - (first + 1)

    def grown(self) -> U32:
        """Pages beyond the smallest size that have no image: the database was cut off before
        them and grew again over their numbers, so they are zeros whatever they were before."""
        if self.size is None or self.smallest is None:
            return np.zeros(0, np.uint32)
        beyond = np.arange(self.smallest + 1, self.size + 1, dtype=np.uint32)
        return np.setdiff1d(beyond, self._pgnos, assume_unique=True)

    def within(self, first_pgno: int, count: int) -> list[tuple[int, int]]:
        """(page number, frame) for those of the pages from ``first_pgno`` on that have one."""
        low, high = np.searchsorted(self._pgnos, [first_pgno, first_pgno + count])
        return list(
            zip(self._pgnos[low:high].tolist(), self._frames[low:high].tolist(), strict=True)
        )
