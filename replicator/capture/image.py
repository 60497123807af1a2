"""The database as it was at one position of its WAL, readable page by page while it changes.

Rests on one fact: a checkpoint copies nothing into the database file that is newer than the end
of the WAL as read *after* the hold was opened. So a page is its newest frame up to that end, else
the bytes in the file.

An image can outlive its hold: :meth:`Image.keep` copies into memory each page that a checkpoint may
overwrite. A checkpoint copies pages of the WAL as it was when the newest hold was opened, and no
others; all these are in memory, so any other page is in the file as it was.

Owns: the choice between memory, frame and file. Refuses: to hold the WAL; its caller does.
"""

from __future__ import annotations

import threading
from typing import Self

from replicator.capture.limits import CaptureLimits
from replicator.capture.reader import WalReader, no_wal, require_page_size, same_wal
from replicator.errors import ContinuityLost
from replicator.format.database import lock_page
from replicator.format.latest_pages import FrameIndex
from replicator.format.wal import FRAME_HEADER_SIZE, HEADER_SIZE, frame_size
from replicator.model import WalPosition
from replicator.sqlite.live import LiveDatabase

EVERYTHING = 1 << 62
WAL_SHARE = 8  # times as many bytes of WAL are read to keep pages: a page is in it several times


class Image:
    """Pages 1 … ``pages`` at ``position``. Close it at the end.

    The caller holds the WAL, from before ``position`` was read (None: it is read now) until the
    last page was read, with one hold or with several, see :meth:`keep`. ``ContinuityLost`` if
    another file with pages of another size was copied over the database.
    """

    def __init__(
        self,
        database: LiveDatabase,
        limits: CaptureLimits,
        position: WalPosition | None = None,
    ) -> None:
        self._database = database
        self._limits = limits
        self._wal = database.wal.another()
        self._placement = FrameIndex()
        self._kept: dict[int, bytes] = {}  # pages in memory
        self._lock = threading.Lock()  # one thread reads, another one keeps
        try:
            self.page_size = database.header().page_size
            if position is not None:
                require_page_size(position.page_size, self.page_size)
            self.position = self._settle(position)
            self.pages = self._placement.size or self._pages_in_file()
        except BaseException:
            self.close()
            raise

    def _settle(self, position: WalPosition | None) -> WalPosition:
        """Reads the WAL; once more if it was reset since, as a hold on mark zero permits."""
        try:
            return self._read_wal(position)
        except ContinuityLost:
            self._placement = FrameIndex()
            return self._read_wal(position)

    def _read_wal(self, position: WalPosition | None) -> WalPosition:
        reader = WalReader(self._wal, no_wal(self.page_size), self._limits)
        found = reader.find(EVERYTHING)
        if position is not None and not same_wal(reader.position, position):
            return position  # the WAL was reset, so the file contains all of it
        if found is None:
            return position or reader.position
        for batch in reader.batches(found):
            count = batch.count
            if position is not None:
                count = min(count, position.frame - batch.base.frame)
            if count > 0:
                self._placement.add(batch.frames, count, batch.base.frame)
        return position or found.end

    def _pages_in_file(self) -> int:
        """The header's own count; the file may be longer (SQLITE_FCNTL_CHUNK_SIZE)."""
        return self._database.header().pages or self._database.raw.size() // self.page_size

    def read(self, first_pgno: int, count: int) -> bytearray:
        """The images of consecutive pages, one after another."""
        with self._lock:
            return self._read(first_pgno, count)

    def _read(self, first_pgno: int, count: int) -> bytearray:
        data = self._from_file(first_pgno, count)
        overlaid = self._placement.within(first_pgno, count)
        if overlaid and not self._put_over(data, first_pgno, overlaid):
            self._placement = FrameIndex()
            return self._read(first_pgno, count)
        for pgno in range(first_pgno, first_pgno + count) if self._kept else ():
            if pgno in self._kept:
                start = (pgno - first_pgno) * self.page_size
                data[start : start + self.page_size] = self._kept[pgno]
        return data

    def keep(self, most: int) -> bool:
        """Copies every page that a checkpoint may overwrite into memory, ``most`` bytes in all.

        Call it after a new hold was opened, and release the old one after it: True. False if the
        old one has to stay, because that were too many pages, or because the database shrank, so
        that a checkpoint cuts pages off.
        """
        with self._lock:
            changed = self._changed_since(WAL_SHARE * most)
            if changed is None or (changed.smallest or self.pages) < self.pages:
                return False
            wanted = {*self._placement.pages, *changed.pages} - self._kept.keys()
            pages = [pgno for pgno in wanted if pgno <= self.pages]
            if (len(self._kept) + len(pages)) * self.page_size > most:
                return False
            self._kept.update({pgno: bytes(self._read(pgno, 1)) for pgno in pages})
            self._placement = FrameIndex()  # its pages are in memory, or in the file
            return True

    def _changed_since(self, most: int) -> FrameIndex | None:
        """The pages of the WAL behind :attr:`position`, or of a whole new WAL. None if these are
        more than ``most`` bytes, or the WAL was reset just now."""
        changed, reader = FrameIndex(), WalReader(self._wal, self.position, self._limits)
        try:
            if reader.look() and reader.reaches(1 + most // frame_size(reader.position)):
                return None
            committed = reader.find(EVERYTHING)
            for batch in reader.batches(committed) if committed is not None else ():
                changed.add(batch.frames, batch.count, batch.base.frame)
        except ContinuityLost:
            return None
        return changed

    def _from_file(self, first_pgno: int, count: int) -> bytearray:
        data = bytearray(count * self.page_size)
        self._database.raw.preadinto(data, (first_pgno - 1) * self.page_size)
        hole = lock_page(self.page_size) - first_pgno
        if 0 <= hole < count:
            data[hole * self.page_size : (hole + 1) * self.page_size] = bytes(self.page_size)
        return data

    def _put_over(self, data: bytearray, first_pgno: int, overlaid: list[tuple[int, int]]) -> bool:
        """False if the WAL was reset since: then the file alone is the image.

        A writer that restarts a WAL writes the new header before any frame, so a header that is
        unchanged after these reads vouches for them.
        """
        for pgno, frame in overlaid:
            at = HEADER_SIZE + (frame - 1) * (self.page_size + FRAME_HEADER_SIZE)
            page = self._wal.read(self.page_size, at + FRAME_HEADER_SIZE)
            start = (pgno - first_pgno) * self.page_size
            data[start : start + len(page)] = page
        header = self._wal.header()
        return header is not None and same_wal(header.start(), self.position)

    def close(self) -> None:
        self._wal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
