"""A segment on its way into the cache.

Owns: one unfinished file. Refuses: to be a segment before :meth:`Draft.finish` returned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from replicator.cache.ledger import SegmentRecord
from replicator.system.files import Buffer, OutFile

Keep: TypeAlias = Callable[[OutFile, SegmentRecord, bytes, Sequence[SegmentRecord]], None]


class Draft:
    """A segment file being written; ends with :meth:`finish` or :meth:`discard`."""

    def __init__(self, file: OutFile, keep: Keep) -> None:
        self._file = file
        self._keep = keep

    @property
    def size(self) -> int:
        return self._file.size

    def write(self, data: Buffer) -> None:
        self._file.write(data)

    def finish(
        self, record: SegmentRecord, *, change: bytes = b"", replaces: Sequence[SegmentRecord] = ()
    ) -> SegmentRecord:
        """Make the segment durable in the cache, with what it changes in the page hashes.

        ``replaces`` are the waiting segments that this one stands for (a concatenation or a
        squash of them). ``ValueError`` when the record does not fit. After any error the cache
        is as before and the draft is gone.
        """
        self._keep(self._file, record, change, replaces)
        return record

    def discard(self) -> None:
        self._file.discard()
