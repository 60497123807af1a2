"""The pages of a database as it moves from transaction to transaction, without all of it.

Owns: a sparse file with the pages that WAL objects changed, and the blocks of the snapshot that
were asked for, one request each. Memory is bounded: some blocks, and one byte for each page.
Refuses to interpret a page.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable

from replicator.archive.index import SnapshotObject
from replicator.format.envelope import Tail
from replicator.format.snapshot_blocks import decode_block
from replicator.format.wal import FRAME_HEADER_SIZE
from replicator.recovery.fetch import Fetcher
from replicator.recovery.segment import Segment
from replicator.recovery.snapshot import page_size_of
from replicator.store.retry import retry_damaged
from replicator.system.pagefile import PageFile

BLOCKS = 64  # of the snapshot that are kept, of 1 MiB each


class StatePages:
    """Begins as the snapshot. ``size`` is the number of pages."""

    def __init__(
        self, snapshot: SnapshotObject, tail: Tail, fetcher: Fetcher, file: PageFile
    ) -> None:
        self.page_size = page_size_of(snapshot, tail, fetcher.limits)
        self.size = tail.trailer.pages
        self._key = snapshot.key
        self._seek = tail.seek or ()
        self._fetcher = fetcher
        self._file = file
        self._whole = self.size  # the pages up to here are those of the snapshot, unless written
        self._written = bytearray(self.size + 1)
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def read(self, pgno: int) -> bytes:
        """The newest image; zeros for a page without one."""
        if pgno < len(self._written) and self._written[pgno]:
            image = bytearray(self.page_size)
            self._file.preadinto(image, (pgno - 1) * self.page_size)
            return bytes(image)
        if not 1 <= pgno <= self._whole:
            return bytes(self.page_size)
        offset = (pgno - 1) * self.page_size
        at = bisect_right(self._seek, offset, key=lambda entry: entry.raw_offset) - 1
        begin = offset - self._seek[at].raw_offset
        return self._block(at)[begin : begin + self.page_size]

    def _block(self, at: int) -> bytes:
        block = self._blocks.pop(at, None)
        if block is None:
            block = retry_damaged(lambda: self._fetch(at))
        self._blocks[at] = block
        while len(self._blocks) > BLOCKS:
            self._blocks.popitem(last=False)
        return block

    def _fetch(self, at: int) -> bytes:
        entry = self._seek[at]
        data = self._fetcher.get(self._key, entry.offset, entry.compressed)
        return decode_block(data, entry, self._key)

    def apply(
        self,
        segment: Segment,
        *,
        frames: int | None = None,
        committed: Callable[[list[int]], None] = lambda _: None,
    ) -> None:
        """Write the pages of an object, or of its first ``frames``. After each commit its page
        numbers go to ``committed``, each once."""
        last = segment.frames.count if frames is None else frames
        changed: dict[int, None] = {}
        width = self.page_size + FRAME_HEADER_SIZE
        for first, data, found in segment.chunks():
            numbers, sizes = found.pages.tolist(), found.commits.tolist()
            for at in range(min(len(numbers), last - first)):
                self._write(numbers[at], data[at * width + FRAME_HEADER_SIZE : (at + 1) * width])
                changed[numbers[at]] = None
                if sizes[at]:
                    self._resize(sizes[at])
                    committed(list(changed))
                    changed = {}

    def _write(self, pgno: int, image: bytes) -> None:
        if pgno >= len(self._written):
            self._written += bytes(max(pgno, 2 * len(self._written)) + 1 - len(self._written))
        self._written[pgno] = 1
        self._file.pwrite(image, (pgno - 1) * self.page_size)

    def _resize(self, pages: int) -> None:
        """A page that was cut off has no image, even if the database grows over it again."""
        end = min(self.size + 1, len(self._written))
        self._written[pages + 1 : end] = bytes(max(0, end - pages - 1))
        self._whole, self.size = min(self._whole, pages), pages
