"""The newest events of a replicator, for those who listen.

Owns: a ring of numbered events, and the wait for the next one. A failure that is repeated is one
event until it is over. Refuses: to call a listener, and to keep an event for ever.
"""

from __future__ import annotations

import threading
import uuid
from collections import deque
from collections.abc import Callable

from replicator.model import ReplicationEvent
from replicator.system import clock

KEPT = 200


class EventLog:
    """Any thread may call its methods."""

    def __init__(
        self, clock_ms: Callable[[], int] = clock.now_ms, *, kept: int = KEPT, healthy: bool = True
    ) -> None:
        self.id = uuid.uuid4().hex  # numbers of another log mean other events
        self._clock_ms = clock_ms
        self._changed = threading.Condition()
        self._events: deque[ReplicationEvent] = deque(maxlen=kept)
        self._newest = 0
        self._failing: set[str] = set()
        self._healthy = healthy

    @property
    def newest(self) -> int:
        """The number of the newest event, 0 before the first."""
        return self._newest

    def add(self, name: str, detail: str = "", *, code: str = "", txid: int | None = None) -> None:
        with self._changed:
            self._newest += 1
            self._events.append(
                ReplicationEvent(self._newest, self._clock_ms(), name, detail, code, txid)
            )
            self._changed.notify_all()

    def failing(self, name: str, detail: str, code: str = "") -> None:
        """An event unless ``name`` fails already."""
        with self._changed:
            if name not in self._failing:
                self._failing.add(name)
                self.add(name, detail, code=code)

    def works(self, failing: str, name: str) -> None:
        """The event ``name`` if ``failing`` was the last known state."""
        if failing in self._failing:
            with self._changed:
                self._failing.discard(failing)
                self.add(name)

    def health(self, *, healthy: bool, reason: str) -> None:
        """An event if the health differs from the last one."""
        with self._changed:
            if healthy != self._healthy:
                self._healthy = healthy
                self.add("healthy" if healthy else "unhealthy", "" if healthy else reason)

    def after(self, number: int, seconds: float) -> list[ReplicationEvent]:
        """The events after ``number``, waited for up to ``seconds``; none if none came."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest > number, seconds)
            return [event for event in self._events if event.number > number]
