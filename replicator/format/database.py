"""The database file as values: its header, and the hash of every page.

The database checksum is the XOR over all pages of a 64-bit hash seeded with the page number: it
does not depend on order and is updated per changed page. Owns that definition; refuses to know
where images come from.
Source: SQLite documentation, "Database File Format"; xxHash, XXH3 64 bits.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from xxhash import xxh3_64_intdigest

from replicator.format.buffers import U32, U64, Buffer, Offsets
from replicator.format.wal import Frames, newest, valid_page_size
from replicator.model import DatabaseState

_MAGIC = b"SQLite format 3\0"
_PENDING_BYTE = 0x40000000
_DUMP = struct.Struct("<8sIIQ")  # magic with version, page size, pages, database checksum
_DUMP_MAGIC = b"RPLHASH1"


@dataclass(frozen=True, slots=True)
class DatabaseHeader:
    """What the first 100 bytes say. ``pages`` is the field at offset 28, which is 0 or stale
    when software older than SQLite 3.7.0 wrote last."""

    page_size: int
    pages: int
    wal_mode: bool
    auto_vacuum: bool


def parse_database_header(data: Buffer) -> DatabaseHeader | None:
    """None when the first 100 bytes are not those of a SQLite database."""
    if len(data) < 100 or bytes(data[:16]) != _MAGIC:
        return None
    size, write_version, read_version = struct.unpack_from(">HBB", data, 16)
    page_size = 65536 if size == 1 else size
    if not valid_page_size(page_size):
        return None
    (pages,), (largest_root,) = (struct.unpack_from(">I", data, at) for at in (28, 52))
    return DatabaseHeader(
        page_size, pages, (write_version, read_version) == (2, 2), largest_root != 0
    )


def lock_page(page_size: int) -> int:
    """The page that contains byte 0x40000000: never in a log, without content."""
    return _PENDING_BYTE // page_size + 1


def page_hash(pgno: int, page: Buffer) -> int:
    return xxh3_64_intdigest(page, pgno)


class PageHashes:
    """The hash of every page of one database and their XOR, the database checksum.

    Takes 8 bytes a page. The lock page counts as 0 whatever its bytes. Pages that appear
    because the database grows without an image of them are pages of zeros.
    """

    def __init__(self, page_size: int, *, room: int = 64) -> None:
        """``room``: for so many pages, more if need be."""
        self.page_size = page_size
        self.pages = 0
        self.checksum = 0
        self._hashes = np.zeros(room, np.uint64)  # doubled if need be; 0 beyond ``pages``

    @property
    def state(self) -> DatabaseState:
        return DatabaseState(self.pages, self.checksum)

    def copy(self) -> PageHashes:
        twin = PageHashes(self.page_size)
        twin.pages, twin.checksum = self.pages, self.checksum
        twin._hashes = self._hashes.copy()
        return twin

    def extend(self, first_pgno: int, data: Buffer) -> None:
        """Append consecutive whole pages, the first of which must be the next one
        (ValueError)."""
        if first_pgno != self.pages + 1:
            raise ValueError(f"page {first_pgno} does not follow page {self.pages}")
        count = len(data) // self.page_size
        pgnos = np.arange(first_pgno, first_pgno + count, dtype=np.uint32)
        self._reserve(self.pages + count)
        self.pages += count
        self.put(pgnos, self.hash_pages(pgnos, data))

    def apply(self, frames: Frames, count: int, data: Buffer) -> None:
        """The first ``count`` frames of ``data``, the last of which commits, take effect.

        Only the newest image of each page is hashed. A page that a commit cuts off is gone,
        even if the database grows over its number again.
        """
        sizes = frames.commits[:count]
        sizes = sizes[sizes != 0]
        if not len(sizes):
            return
        pgnos, indexes = newest(frames, count)
        frame_size = self.page_size + 24
        hashes = self.hash_at(pgnos, data, indexes * frame_size + 24)
        self.resize(min(self.pages, int(sizes.min())))
        self.grow(int(sizes[-1]), pgnos)
        self.put(pgnos, hashes)

    def set_pages(self, pgnos: U32, data: Buffer, *, pages: int) -> None:
        """New images, one after another in ``data``, and the database's new size in pages."""
        hashes = self.hash_pages(pgnos, data)
        self.resize(min(self.pages, pages))
        self.grow(pages, pgnos)
        self.put(pgnos, hashes)

    def differing(self, first_pgno: int, data: Buffer) -> U32:
        """Which of the consecutive pages in ``data`` are not the ones known here (or are new)."""
        count = len(data) // self.page_size
        pgnos = np.arange(first_pgno, first_pgno + count, dtype=np.uint32)
        known = np.zeros(count, np.uint64)
        inside = self._hashes[first_pgno - 1 : self.pages][:count]
        known[: len(inside)] = inside
        different = known != self.hash_pages(pgnos, data)
        different &= pgnos != lock_page(self.page_size)
        return np.extract(different, pgnos)

    def resize(self, pages: int) -> None:
        """Drop the pages beyond ``pages``, or add pages of zeros up to it."""
        if pages < self.pages:
            self.checksum ^= _xor(self._hashes[pages : self.pages])
            self._hashes[pages : self.pages] = 0
            self.pages = pages
        self.grow(pages, np.zeros(0, np.uint32))

    def hash_pages(self, pgnos: U32, data: Buffer) -> U64:
        """Hashes of the page images in ``data``, one after another, numbered ``pgnos``."""
        return self.hash_at(pgnos, data, np.arange(len(pgnos)) * self.page_size)

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
        body = head + self._hashes[: self.pages].astype("<u8").tobytes()
        return body + struct.pack("<Q", xxh3_64_intdigest(body))

    @classmethod
    def from_bytes(cls, data: bytes) -> PageHashes | None:
        """None when the bytes are not, exactly, what :meth:`to_bytes` made."""
        if len(data) < _DUMP.size + 8 or len(data) % 8:
            return None
        magic, page_size, pages, checksum = _DUMP.unpack_from(data)
        body, (seal,) = memoryview(data)[:-8], struct.unpack("<Q", data[-8:])
        if magic != _DUMP_MAGIC or xxh3_64_intdigest(body) != seal:
            return None
        array = np.frombuffer(body[_DUMP.size :], "<u8").astype(np.uint64)
        if len(array) != pages or _xor(array) != checksum:
            return None
        loaded = cls(page_size)
        loaded._hashes, loaded.pages, loaded.checksum = array, pages, checksum
        return loaded

    def hash_at(self, pgnos: U32, data: Buffer, offsets: Offsets) -> U64:
        view, size = memoryview(data), self.page_size
        hashes = np.array(
            [
                xxh3_64_intdigest(view[at : at + size], pgno)
                for pgno, at in zip(pgnos.tolist(), offsets.tolist(), strict=True)
            ],
            np.uint64,
        )
        hashes[pgnos == lock_page(self.page_size)] = 0
        return hashes

    def grow(self, pages: int, but: U32) -> None:
        """Add pages of zeros up to ``pages``; those in ``but`` are about to be put."""
        first = self.pages + 1
        if pages < first:
            return
        self._reserve(pages)
        self.pages = pages
        added = np.arange(first, pages + 1, dtype=np.uint32)
        added = np.setdiff1d(added, but[but >= first], assume_unique=True)
        zeros = bytes(self.page_size)
        self.put(added, self.hash_at(added, zeros, np.zeros(len(added), np.intp)))

    def _reserve(self, pages: int) -> None:
        capacity = len(self._hashes)
        if pages > capacity:
            grown = np.zeros(max(pages, 2 * capacity), np.uint64)
            grown[:capacity] = self._hashes
            self._hashes = grown


def _xor(hashes: U64) -> int:
    return int(np.bitwise_xor.reduce(hashes)) if len(hashes) else 0
