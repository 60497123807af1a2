"""The events of a sidecar as a stream, across its end and the start of the next one.

Owns: the position in the stream. Refuses: to keep a listener of a handle that was stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from replicator.errors import ReplicatorError
from replicator.model import ReplicationEvent

POLL = 2.0  # seconds of one request, and so until a stopped handle is noticed
PAUSE = 0.2  # seconds between two attempts while no sidecar answers
ENDED = "sidecar_ended"


class EventStream:
    """Of one listener. Used by one thread at a time."""

    def __init__(
        self,
        ask: Callable[[dict[str, Any]], dict[str, Any]],
        *,
        past: bool = False,
        poll: float = POLL,
        pause: float = PAUSE,
    ) -> None:
        """``ask`` gets the answer of the sidecar, or raises. ``past``: first the events that the
        sidecar remembers. Times are in seconds."""
        self._ask = ask
        self._poll = poll
        self._pause = pause
        self._log = ""
        self._after = 0 if past else None
        self._lost = False  # the sidecar ended, and no other one answered yet

    def next(self) -> list[ReplicationEvent]:
        """The next events; none if none came for a while."""
        request = {
            "command": "events",
            "log": self._log,
            "after": self._after,
            "timeout": 0.0 if self._after is None else self._poll,
        }
        try:
            answer = self._ask(request)
        except ReplicatorError as error:
            return self._silent(error)
        self._lost = False
        self._log, self._after = answer["log"], answer["after"]
        return [ReplicationEvent(**event) for event in answer["events"]]

    def _silent(self, error: ReplicatorError) -> list[ReplicationEvent]:
        """No sidecar answers: an event the first time, and a pause."""
        if self._lost:
            time.sleep(self._pause)
            return []
        self._lost = True
        self._after = self._after or 0  # everything of the next sidecar
        now_ms = time.time_ns() // 1_000_000
        return [ReplicationEvent(self._after, now_ms, ENDED, str(error), error.code)]


def follow(stream: EventStream, started: Callable[[], bool]) -> Iterator[ReplicationEvent]:
    """The events until ``started`` is false."""
    while started():
        yield from stream.next()
