"""The hash of every page of a database, and the change that a run of frames makes to them.

The database checksum is the XOR over all pages of a 64-bit hash seeded with the page number. It
does not depend on order, and a changed page updates it in constant time. Owns that definition.
Refuses to know the source of the images.
Source: xxHash, XXH3 64 bits.
"""

from __future__ import annotations

import struct

import numpy as np
from xxhash import xxh3_64_intdigest

from replicator.format.buffers import U32, U64, Buffer, Flags, Offsets, page_range
from replicator.format.database import HEADER_BYTES, lock_page
from replicator.format.wal import FRAME_HEADER_SIZE, Frames, newest
from replicator.model import DatabaseState

_DUMP = struct.Struct("<8sIIQ")  # magic with version, page size, pages, database checksum
_DUMP_MAGIC = b"RPLHASH1"
_GROWN = 1 << 16  # pages of zeros hashed at once
_CHANGE = struct.Struct("<III")  # smallest and final size in pages, number of pages that follow


class PageHashes:
    """The hash of every page of one database and their XOR, the database checksum.

    Takes 8 bytes a page. The lock page counts as 0 whatever its bytes. A page that appears
    because the database grows, without an image of it, is a page of zeros.
    """

    def __init__(self, page_size: int, *, room: int = 64) -> None:
        """``room``: number of pages to allocate memory for; it grows as needed."""
        self.page_size = page_size
        self.pages = 0
        self.checksum = 0
        self._hashes = np.zeros(room, np.uint64)  # doubled as needed; 0 beyond ``pages``

    @property
    def state(self) -> DatabaseState:
        return DatabaseState(self.pages, self.checksum)

    def copy(self) -> PageHashes:
        twin = PageHashes(self.page_size)
        twin.pages, twin.checksum = self.pages, self.checksum
        twin._hashes = self._hashes.copy()
        return twin

    def extend(self, first_pgno: int, data: Buffer) -> None:
        """Append consecutive whole pages. The first must be the next page (ValueError)."""
        if first_pgno != self.pages + 1:
            raise ValueError(f"page {first_pgno} does not follow page {self.pages}")
        hashes = page_hashes(self.page_size, first_pgno, data)
        pgnos = page_range(first_pgno, self.pages + len(hashes))
        self._reserve(self.pages + len(hashes))
        self.pages += len(hashes)
        self.put(pgnos, hashes)

    def differing(self, first_pgno: int, data: Buffer) -> U32:
        """Numbers of the consecutive pages in ``data`` that are new or have another hash."""
        found = page_hashes(self.page_size, first_pgno, data)
        known = np.zeros(len(found), np.uint64)
        inside = self._hashes[first_pgno - 1 : self.pages][: len(found)]
        known[: len(inside)] = inside
        pgnos = page_range(first_pgno, first_pgno + len(found) - 1)
        return np.extract((known != found) & (pgnos != lock_page(self.page_size)), pgnos)

    def resize(self, pages: int) -> None:
        """Drop the pages beyond ``pages``, or add pages of zeros up to it."""
        if pages < self.pages:
            self.checksum ^= _xor(self._hashes[pages : self.pages])
            self._hashes[pages : self.pages] = 0
            self.pages = pages
        self.grow(pages, np.zeros(0, np.uint32))

    def grow(self, pages: int, but: U32) -> None:
        """Add pages of zeros up to ``pages``. The caller puts the pages in ``but`` next."""
        first = self.pages + 1
        if pages < first:
            return
        self._reserve(pages)
        self.pages = pages
        zeros, but = bytes(self.page_size), np.sort(but[but >= first])
        for low in range(first, pages + 1, _GROWN):
            run = page_range(low, min(low + _GROWN - 1, pages))
            begin, end = np.searchsorted(but, [low, low + len(run)])
            added = np.setdiff1d(run, but[begin:end], assume_unique=True)
            offsets = np.zeros(len(added), np.intp)
            self.put(added, _hash_at(self.page_size, added, zeros, offsets))

    def get(self, pgnos: U32) -> U64:
        """The known hashes of pages, each between 1 and ``pages``."""
        return self._hashes[pgnos.astype(np.intp) - 1]

    def put(self, pgnos: U32, hashes: U64) -> None:
        """Set the hashes of distinct pages, each between 1 and ``pages`` (ValueError)."""
        if not len(pgnos):
            return
        if not 1 <= int(pgnos.min()) <= int(pgnos.max()) <= self.pages:
            raise ValueError(f"page outside the database of {self.pages} pages")
        at = pgnos.astype(np.intp) - 1
        self.checksum ^= _xor(self._hashes[at]) ^ _xor(hashes)
        self._hashes[at] = hashes

    def to_bytes(self) -> bytes:
        """Header, hashes, and the hash of both; see :meth:`from_bytes`."""
        head = _DUMP.pack(_DUMP_MAGIC, self.page_size, self.pages, self.checksum)
        body = head + pack_hashes(self._hashes[: self.pages])
        return body + struct.pack("<Q", xxh3_64_intdigest(body))

    @classmethod
    def from_bytes(cls, data: bytes) -> PageHashes | None:
        """The hashes, or None unless the bytes are exactly the output of :meth:`to_bytes`."""
        if len(data) < _DUMP.size + 8 or len(data) % 8:
            return None
        magic, page_size, pages, checksum = _DUMP.unpack_from(data)
        body, (seal,) = memoryview(data)[:-8], struct.unpack("<Q", data[-8:])
        if magic != _DUMP_MAGIC or xxh3_64_intdigest(body) != seal:
            return None
        hashes = unpack_hashes(body[_DUMP.size :])
        if len(hashes) != pages or _xor(hashes) != checksum:
            return None
        loaded = cls(page_size)
        loaded._hashes, loaded.pages, loaded.checksum = hashes, pages, checksum
        return loaded

    def _reserve(self, pages: int) -> None:
        capacity = len(self._hashes)
        if pages > capacity:
            grown = np.zeros(max(pages, 2 * capacity), np.uint64)
            grown[:capacity] = self._hashes
            self._hashes = grown


class HashChange:
    """The effect of a run of frames on the page hashes: applied as a whole, undone as a whole.

    A capture reads a run of committed frames in batches, and one transaction may span many of
    them. The hashes must not change before the last batch was read, and must change back if the
    segment cannot be written. Collects batches with :meth:`add`, then :meth:`apply`, and
    :meth:`undo` if needed.
    """

    def __init__(self, hashes: PageHashes) -> None:
        self._hashes = hashes
        self._pgnos = np.zeros(0, np.uint32)
        self._values = np.zeros(0, np.uint64)
        self._smallest = hashes.pages  # the smallest size in pages that a commit left
        self._size = hashes.pages
        self._before: tuple[int, U64, U64] | None = None  # pages, cut off, overwritten
        self.header = b""  # the first bytes of the newest image of page 1; "" without one

    def add(self, frames: Frames, count: int, data: Buffer) -> None:
        """Add the next ``count`` frames of ``data``. They need not end a transaction."""
        pgnos, indexes = newest(frames, count)
        page_size = self._hashes.page_size
        offsets = indexes * (page_size + FRAME_HEADER_SIZE) + FRAME_HEADER_SIZE
        values = _hash_at(page_size, pgnos, data, offsets)
        for at in offsets[pgnos == 1].tolist():
            self.header = bytes(memoryview(data)[at : at + HEADER_BYTES])
        sizes = frames.sizes(count)
        if sizes is not None:
            self._size, self._smallest = sizes.last, min(self._smallest, sizes.smallest)
            self._keep(self._pgnos <= sizes.smallest)
        self._keep(~np.isin(self._pgnos, pgnos, assume_unique=True))
        self._pgnos = np.concatenate((self._pgnos, pgnos))
        self._values = np.concatenate((self._values, values))

    def _keep(self, which: Flags) -> None:
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
        self._before = (hashes.pages, hashes.get(page_range(low + 1, hashes.pages)), overwritten)
        _change(hashes, low, self._size, self._pgnos, self._values)

    def undo(self) -> None:
        """Restore the hashes to their state before :meth:`apply`; without it, do nothing."""
        if self._before is None:
            return
        pages, cut_off, overwritten = self._before
        hashes, low = self._hashes, self._smallest
        hashes.resize(low)
        hashes.put(self._pgnos[self._pgnos <= low], overwritten)
        hashes.grow(pages, page_range(low + 1, pages))
        hashes.put(page_range(low + 1, pages), cut_off)
        self._before = None

    def to_bytes(self) -> bytes:
        """The change for :func:`replay`; about 12 bytes a page."""
        head = _CHANGE.pack(self._smallest, self._size, len(self._pgnos))
        return head + self._pgnos.astype("<u4").tobytes() + pack_hashes(self._values)


def replay(hashes: PageHashes, data: bytes) -> None:
    """Apply a change that :meth:`HashChange.to_bytes` made to the hashes as they were before it.

    ``ValueError`` when the change cannot belong to them; the hashes are unusable then.
    """
    if len(data) < _CHANGE.size:
        raise ValueError("the change is cut short")
    smallest, size, count = _CHANGE.unpack_from(data)
    if len(data) != _CHANGE.size + 12 * count or smallest > hashes.pages:
        raise ValueError("the change does not fit the hashes")
    pgnos = np.frombuffer(data, "<u4", count, _CHANGE.size).astype(np.uint32)
    values = unpack_hashes(memoryview(data)[_CHANGE.size + 4 * count :])
    _change(hashes, smallest, size, pgnos, values)


def _change(hashes: PageHashes, smallest: int, size: int, pgnos: U32, values: U64) -> None:
    """Cut the database to its smallest size, grow it to its final one, and put the pages."""
    hashes.resize(smallest)
    hashes.grow(size, pgnos)
    hashes.put(pgnos, values)


def page_hashes(page_size: int, first_pgno: int, data: Buffer) -> U64:
    """The hash of each of the consecutive whole pages in ``data``."""
    count = len(data) // page_size
    pgnos = page_range(first_pgno, first_pgno + count - 1)
    return _hash_at(page_size, pgnos, data, np.arange(count) * page_size)


def checksum_of_pages(page_size: int, first_pgno: int, data: Buffer) -> int:
    """The contribution of the consecutive pages in ``data`` to the database checksum."""
    return _xor(page_hashes(page_size, first_pgno, data))


def pack_hashes(hashes: U64) -> bytes:
    return hashes.astype("<u8").tobytes()


def unpack_hashes(data: Buffer) -> U64:
    return np.frombuffer(data, "<u8").astype(np.uint64)


def _hash_at(page_size: int, pgnos: U32, data: Buffer, offsets: Offsets) -> U64:
    """Hashes of the pages ``pgnos``, whose images begin at ``offsets`` in ``data``."""
    view = memoryview(data)
    hashes = np.array(
        [
            xxh3_64_intdigest(view[at : at + page_size], pgno)
            for pgno, at in zip(pgnos.tolist(), offsets.tolist(), strict=True)
        ],
        np.uint64,
    )
    hashes[pgnos == lock_page(page_size)] = 0
    return hashes


def _xor(hashes: U64) -> int:
    return int(np.bitwise_xor.reduce(hashes)) if len(hashes) else 0
