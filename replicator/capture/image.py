"""The database as it was at one position of its WAL, readable page by page while it changes.

Rests on one fact: a checkpoint copies nothing into the database file that is newer than the end
of the WAL as read *after* the hold was opened. So a page is its newest frame up to that end, else
the bytes in the file.

Owns: the choice between frame and file. Refuses: to hold the WAL; its caller does.
"""

from __future__ import annotations

from typing import Self

from replicator.capture.limits import CaptureLimits
from replicator.capture.reader import WalReader, no_wal, same_wal
from replicator.errors import ContinuityLost
from replicator.format.database import lock_page
from replicator.format.latest_pages import FrameIndex
from replicator.format.wal import FRAME_HEADER_SIZE, HEADER_SIZE
from replicator.model import WalPosition
from replicator.sqlite.live import LiveDatabase

EVERYTHING = 1 << 62


class Image:
    """Pages 1 … ``pages`` at ``position``. One thread reads at a time; close it at the end.

    The caller holds the WAL, from before ``position`` was read (None: it is read now) until the
    last page was read.
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
        try:
            self.page_size = database.header().page_size
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
        data = self._from_file(first_pgno, count)
        overlaid = self._placement.within(first_pgno, count)
        if overlaid and not self._put_over(data, first_pgno, overlaid):
            self._placement = FrameIndex()
            return self.read(first_pgno, count)
        return data

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
