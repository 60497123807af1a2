"""Where the newest image of each page lies in a log: what to lay over the database file."""

from __future__ import annotations

import numpy as np

from replicator.format.buffers import U32
from replicator.format.wal import Frames, newest


class Placement:
    """Page number → frame (from 1) of its newest committed image. 8 bytes a page."""

    def __init__(self) -> None:
        self._pgnos = np.zeros(0, np.uint32)
        self._frames = np.zeros(0, np.uint32)
        self.size: int | None = None  # database size in pages after the last commit added

    def add(self, frames: Frames, count: int, first: int) -> None:
        """The first ``count`` scanned frames, which lie in the log right after frame ``first``."""
        pgnos, indexes = newest(frames, count)
        sizes = frames.commits[:count]
        sizes = sizes[sizes != 0]
        keep = ~np.isin(self._pgnos, pgnos, assume_unique=True)
        if len(sizes):
            self.size = int(sizes[-1])
            keep &= self._pgnos <= int(sizes.min())
        self._merge(keep, pgnos, (indexes + first + 1).astype(np.uint32))

    def _merge(self, keep: np.ndarray[tuple[int], np.dtype[np.bool_]], pgnos: U32,
               frames: U32) -> None:
        pgnos = np.concatenate((self._pgnos[keep], pgnos))
        order = np.argsort(pgnos, kind="stable")
        self._pgnos = pgnos[order]
        self._frames = np.concatenate((self._frames[keep], frames))[order]

    def within(self, first_pgno: int, count: int) -> list[tuple[int, int]]:
        """(page number, frame) for those of the pages from ``first_pgno`` on that have one."""
        low, high = np.searchsorted(self._pgnos, [first_pgno, first_pgno + count])
        return list(zip(self._pgnos[low:high].tolist(), self._frames[low:high].tolist(),
                        strict=True))
