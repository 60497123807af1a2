"""The sign that a checkpoint of the application waits for the hold.

A FULL, RESTART or TRUNCATE checkpoint stops every writer, then waits for all readers, the hold
included, as long as the busy timeout of its connection. Nothing announces it but two locks.

Owns: the difference between such a checkpoint and a passive one during a write transaction.
Refuses: to move the hold; see :mod:`replicator.capture.holds`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from replicator.capture.limits import CaptureLimits
from replicator.format.wal_index import WalIndexState
from replicator.sqlite.wal_index import WalIndex


class WaitingCheckpoints:
    """Of one session. Each look costs two or three system calls."""

    def __init__(
        self,
        index: WalIndex,
        limits: CaptureLimits,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._index = index
        self._limits = limits
        self._clock = clock
        self._seen: WalIndexState | None = None
        self._last: float | None = None  # time of the last checkpoint that waited

    @property
    def suspected(self) -> bool:
        """True if the next look decides, so that it should come soon."""
        return self._seen is not None

    @property
    def pause(self) -> float:
        """Seconds between two looks while frames are uncaptured."""
        limits, last = self._limits, self._last
        alert = last is not None and self._clock() - last < limits.way_memory
        return limits.way_alert if alert else limits.way_pause

    def look(self) -> bool:
        """True if a checkpoint waits.

        Without a read mark of another process, the owner of the write lock is no writer. With
        one, the same WAL has to be seen at two looks in a row.
        """
        if not self._index.checkpoint_waits():
            self._seen = None
            return False
        state, before = self._index.state(), self._seen
        self._seen = state
        waits = self._index.only_checkpoint_waits() or (state is not None and state == before)
        if waits:
            self._last = self._clock()
        return waits
