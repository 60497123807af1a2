"""The brake on writers: the write lock, held for moments, and every moment of it accounted for.

Owns: how long writers are made to wait, and the figures that tell of it. Refuses to write: the
lock is taken and given back. There are two ways, for writers that outrun the capture: stop them
while the rest of the log is dealt with, or let them have the lock half of the time meanwhile.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from replicator.errors import ReplicatorError
from replicator.metrics import Metrics
from replicator.sqlite.live import LiveDatabase

PATIENCE = 0.5  # seconds to try for the write lock before leaving it for later
# Seconds in turn with the lock and without it. A writer that finds it taken sleeps for 1, 2, 5, 10,
# 15, 20, 25 … ms, as SQLite's busy handler has it, so that it finds the next gap or the one after.
SLICE = 0.02


class WriterBackpressure:
    """Of one database. Its blocks belong to the capture thread."""

    def __init__(
        self,
        database: LiveDatabase,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._clock = clock

    @contextlib.contextmanager
    def block(self, patience: float = PATIENCE) -> Iterator[bool]:
        """No writer has the lock inside the block; yields False when it was not had in time (s)."""
        with self._database.write_lock(patience=patience) as held:
            began = self._clock()
            yield held
        if held:
            self._metrics.add("write_lock_holds")
            self._metrics.observe_max("longest_write_lock_ms", (self._clock() - began) * 1000)

    @contextlib.contextmanager
    def throttle(self) -> Iterator[None]:
        """Writers have the lock half of the time inside the block, so that none waits for long."""
        done = threading.Event()
        thread = threading.Thread(
            target=self._throttle, args=(done,), name="replicator-brake", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _throttle(self, done: threading.Event) -> None:
        with contextlib.suppress(ReplicatorError):  # whoever captures meets the same, and tells
            while not done.is_set():
                with self.block(SLICE):
                    done.wait(SLICE)
                done.wait(SLICE)
