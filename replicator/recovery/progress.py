"""The progress of a restore, or of several, as frozen values handed to the caller.

Owns: the counters, which several threads advance. Refuses: to draw anything.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Progress:
    """Phases in order: plan, segments, snapshot, verify, publish. Bytes are downloaded ones,
    but in the phase verify, where they are bytes of the database. ``trouble`` is why a request
    is being repeated right now, else empty."""

    phase: str
    done_bytes: int = 0
    total_bytes: int = 0
    objects_done: int = 0
    objects_total: int = 0
    trouble: str = ""


Listener = Callable[[Progress], None]


class Meter:
    """Adds up, and calls the listener after every step."""

    def __init__(self, listener: Listener | None) -> None:
        self._listener = listener
        self._lock = threading.Lock()
        self._now = Progress("plan")
        self.downloaded = 0  # bytes fetched, retries included
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time since the meter was made."""
        return time.monotonic() - self._started

    def phase(self, name: str) -> None:
        with self._lock:
            self._tell(replace(self._now, phase=name))

    def begin(self, phase: str, total_bytes: int, objects: int) -> None:
        """Counters start again at zero."""
        with self._lock:
            self._tell(Progress(phase, 0, total_bytes, 0, objects))

    def fetched(self, size: int) -> None:
        """Bytes that came over the network, whether or not they turn out to be good."""
        with self._lock:
            self.downloaded += size

    def advance(self, size: int, objects: int = 0) -> None:
        with self._lock:
            now = self._now
            self._tell(
                replace(
                    now, done_bytes=now.done_bytes + size, objects_done=now.objects_done + objects
                )
            )

    def trouble(self, error: Exception) -> None:
        """A request failed and will be repeated."""
        with self._lock:
            if self._listener is not None:
                self._listener(replace(self._now, trouble=str(error)))

    def _tell(self, now: Progress) -> None:
        self._now = now
        if self._listener is not None:
            self._listener(now)
