"""What a run of frames changes in the page hashes, applied as a whole and taken back as a whole.

A capture reads a run of committed frames in batches; one transaction may span many of them.
Nothing must change before the last batch was read, and everything must change back when the
segment cannot be written after all.
"""

from __future__ import annotations

import struct

import numpy as np

from replicator.format.buffers import U32, U64, Buffer
from replicator.format.database import PageHashes
from replicator.format.wal import FRAME_HEADER_SIZE, Frames, newest

_HEAD = struct.Struct("<III")  # smallest and final size in pages, number of pages that follow


class HashChange:
    """Collects batches with :meth:`add`, then :meth:`apply`; :meth:`undo` if need be."""

    def __init__(self, hashes: PageHashes) -> None:
        self._hashes = hashes
        self._pgnos = np.zeros(0, np.uint32)
        self._values = np.zeros(0, np.uint64)
        self._smallest = hashes.pages  # size in pages that no page survived on the way
        self._size = hashes.pages
        self._before: tuple[int, U64, U64] | None = None  # pages, cut off, overwritten

    def add(self, frames: Frames, count: int, data: Buffer) -> None:
        """The next ``count`` frames of ``data``; they need not end a transaction."""
        pgnos, indexes = newest(frames, count)
        frame_size = self._hashes.page_size + FRAME_HEADER_SIZE
        values = self._hashes.hash_at(pgnos, data, indexes * frame_size + FRAME_HEADER_SIZE)
        sizes = frames.commits[:count]
        sizes = sizes[sizes != 0]
        if len(sizes):
            self._size = int(sizes[-1])
            self._smallest = min(self._smallest, int(sizes.min()))
            self._keep(self._pgnos <= int(sizes.min()))
        self._keep(~np.isin(self._pgnos, pgnos, assume_unique=True))
        self._pgnos = np.concatenate((self._pgnos, pgnos))
        self._values = np.concatenate((self._values, values))

    def _keep(self, which: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> None:
        if not which.all():
            self._pgnos, self._values = self._pgnos[which], self._values[which]

    @property
    def pgnos(self) -> U32:
        """The pages that have a new image."""
        return self._pgnos

    def apply(self) -> None:
        """Change the hashes to the state after the last transaction that was added."""
        hashes, low = self._hashes, self._smallest
        overwritten = hashes.get(self._pgnos[self._pgnos <= low])
        self._before = (hashes.pages, hashes.get(_range(low, hashes.pages)), overwritten)
        hashes.resize(low)
        hashes.grow(self._size, self._pgnos)
        hashes.put(self._pgnos, self._values)

    def undo(self) -> None:
        """Bring back the hashes as they were before :meth:`apply`; without it, do nothing."""
        if self._before is None:
            return
        pages, cut_off, overwritten = self._before
        hashes, low = self._hashes, self._smallest
        hashes.resize(low)
        hashes.put(self._pgnos[self._pgnos <= low], overwritten)
        hashes.grow(pages, _range(low, pages))
        hashes.put(_range(low, pages), cut_off)
        self._before = None

    def to_bytes(self) -> bytes:
        """The change for :func:`replay`; about 12 bytes a page."""
        head = _HEAD.pack(self._smallest, self._size, len(self._pgnos))
        return head + self._pgnos.astype("<u4").tobytes() + self._values.astype("<u8").tobytes()


def replay(hashes: PageHashes, data: bytes) -> None:
    """Apply a change that :meth:`HashChange.to_bytes` made, to hashes as they were before it.

    ``ValueError`` when it cannot belong to them; the hashes are good for nothing then.
    """
    if len(data) < _HEAD.size:
        raise ValueError("the change is cut short")
    smallest, size, count = _HEAD.unpack_from(data)
    if len(data) != _HEAD.size + 12 * count or smallest > hashes.pages:
        raise ValueError("the change does not fit the hashes")
    pgnos = np.frombuffer(data, "<u4", count, _HEAD.size).astype(np.uint32)
    values = np.frombuffer(data, "<u8", count, _HEAD.size + 4 * count).astype(np.uint64)
    hashes.resize(smallest)
    hashes.grow(size, pgnos)
    hashes.put(pgnos, values)


def _range(low: int, high: int) -> U32:
    """Page numbers low + 1 … high."""
    return np.arange(low + 1, high + 1, dtype=np.uint32)
