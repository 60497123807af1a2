"""Examines the database file: are its pages the ones that its WAL produced?

Checkpoints write to the file; so does a user who copies another file over it. A sample shows the
difference: the first page and the last, some at random, and those that changed lately, which an
older copy does not have.

Owns: the sample and the time between two examinations. Refuses: to repair.
"""

from __future__ import annotations

import random
import time

from replicator.capture.holds import WalHolds
from replicator.capture.image import Image
from replicator.capture.reader import WalReader
from replicator.capture.tip import Tip
from replicator.engine.limits import Limits
from replicator.errors import ChangedOutside
from replicator.sqlite.live import LiveDatabase, Stamp


class Examiner:
    """Of one session. Used by the capture thread alone."""

    def __init__(
        self,
        database: LiveDatabase,
        reader: WalReader,
        holds: WalHolds,
        tip: Tip,
        limits: Limits,
    ) -> None:
        self._database = database
        self._reader = reader
        self._holds = holds
        self._tip = tip
        self._limits = limits
        self._examined: Stamp | None = None  # of the file, when it was examined last
        self._not_before = 0.0  # monotonic

    def done(self, stamp: Stamp | None, wal_bytes: int) -> bool:
        """True if the file was examined as it is now, or the WAL is too long for that."""
        return stamp == self._examined or wal_bytes > self._limits.session.examine_bytes

    def examine(self, stamp: Stamp | None, wal_bytes: int, *, promised: bool) -> None:
        """``ChangedOutside`` if pages of the file differ from their hashes. ``promised``: a caller
        waits for the verdict, so it does not wait for the next time."""
        due = promised or time.monotonic() >= self._not_before
        if due and not self.done(stamp, wal_bytes):
            self._examine()

    def _examine(self) -> None:
        stamp, hold = self._holds.check_file(), self._database.hold()
        try:
            if self._reader.look():
                return  # new commits, which the hashes do not contain
            with Image(self._database, self._limits.capture, self._reader.position) as image:
                if not self._database.header().wal_mode or not self._equals_sample(image):
                    raise ChangedOutside(
                        f"{self._database.path} was overwritten", code="overwritten"
                    )
        finally:
            self._database.release(hold)
        self._examined = stamp
        self._not_before = time.monotonic() + self._limits.session.examine_rest

    def _equals_sample(self, image: Image) -> bool:
        hashes, changed = self._tip.hashes, self._tip.changed
        limits = self._limits.session
        sample = {
            1,
            image.pages,
            *random.sample(changed, min(len(changed), limits.examine_changed)),
            *(random.randint(1, image.pages) for _ in range(limits.examine_pages)),
        }
        return image.pages == hashes.pages and not any(
            len(hashes.differing(pgno, image.read(pgno, 1)))
            for pgno in sorted(sample)
            if pgno <= image.pages
        )
