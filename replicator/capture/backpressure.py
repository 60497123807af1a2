"""Backpressure on writers: holds the write lock for moments, and counts each of them.

Owns: how long writers have to wait, and the metrics about it. Refuses: to write; it takes the
lock and releases it. Two ways serve against writers that outrun the capture: block them while the
rest of the WAL is captured, or leave them the lock half of the time.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from replicator.capture.limits import CaptureLimits
from replicator.errors import ReplicatorError
from replicator.metrics import Metrics
from replicator.sqlite.live import LiveDatabase


class WriterBackpressure:
    """Of one database. Its blocks belong to the capture thread."""

    def __init__(
        self,
        database: LiveDatabase,
        metrics: Metrics,
        limits: CaptureLimits,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._patience = limits.lock_patience
        self._slice = limits.lock_slice
        self._clock = clock

    @contextlib.contextmanager
    def block(self, patience: float | None = None) -> Iterator[bool]:
        """No writer has the lock inside the block. Yields False if the lock was not free within
        ``patience`` seconds (default ``lock_patience`` of the limits)."""
        patience = self._patience if patience is None else patience
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
            target=self._throttle, args=(done,), name="replicator-backpressure", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _throttle(self, done: threading.Event) -> None:
        with contextlib.suppress(ReplicatorError):  # the capture meets the same error, and logs it
            while not done.is_set():
                with self.block(self._slice):
                    done.wait(self._slice)
                done.wait(self._slice)
