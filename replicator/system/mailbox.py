"""The mailbox of a thread that decides: incidents and requests from other threads.

Owns: their order, the newest failure, the events that listeners see, and the wake-up of the reader.
Refuses: to decide, and to keep a sender waiting.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from concurrent.futures import Future

from replicator.errors import ReplicatorError
from replicator.model import Cause, Failure, Incident
from replicator.system import clock
from replicator.system.event_log import EventLog

# Users see these in the status; the reader does not have to act on them.
ONLY_NOTED = frozenset(
    {
        Cause.STORE_SLOW,
        Cause.STORE_FAILED,
        Cause.UPLOAD_FAILED,
        Cause.CAPTURE_FAILED,
        Cause.SOURCE_SHRANK,
        Cause.SOURCE_REPLACED,
        Cause.UNRESTORABLE,
    }
)


STORE_FAILING = "store_failing"  # event, until the store answers again
_FAILING = frozenset({Cause.STORE_SLOW, Cause.STORE_FAILED, Cause.UPLOAD_FAILED})
_EVENTS = {
    Cause.SOURCE_SHRANK: "database_shrank",
    Cause.SOURCE_REPLACED: "database_replaced",
    Cause.TAKE_OVER: "take_over",
    **{
        cause: cause.name.lower()
        for cause in (
            Cause.ARCHIVE_LOST,
            Cause.OVERTAKEN,
            Cause.SEGMENT_DAMAGED,
            Cause.SOURCE_DAMAGED,
            Cause.CHANGED_OUTSIDE,
            Cause.UNRESTORABLE,
            Cause.LEDGER_LOST,
        )
    },
}  # others show as a change of the state


class Wanted(enum.Enum):
    """The kinds of requests; every answer is a txid."""

    CAPTURE = enum.auto()  # everything committed before the request is captured
    SNAPSHOT = enum.auto()  # a snapshot of that state is in the store
    WHOLE_SNAPSHOT = enum.auto()  # the same, with none of its bytes copied inside the store
    GENERATION = enum.auto()  # a new generation has begun


class Request(Future[int]):
    """A question from another thread, which waits for the result."""

    def __init__(self, wanted: Wanted, reason: str = "") -> None:
        super().__init__()
        self.wanted = wanted
        self.reason = reason


class Mailbox:
    """One reader; any thread may send."""

    def __init__(self, clock_ms: Callable[[], int] = clock.now_ms) -> None:
        self._clock_ms = clock_ms
        self._lock = threading.Lock()
        self._event = threading.Event()
        self._incidents: list[Incident] = []
        self._requests: list[Request] = []
        self._closed: ReplicatorError | None = None
        self.events = EventLog(clock_ms)
        self.newest: Failure | None = None
        """The newest failure reported; it stays after the failure is over."""

    def report(self, incident: Incident) -> None:
        """Hand an incident over; wakes the reader unless the cause needs no action."""
        self._note(incident)
        with self._lock:
            if incident.error is not None:
                self.newest = Failure(incident.error, self._clock_ms())
            if incident.cause in ONLY_NOTED:
                return
            self._incidents.append(incident)
        self._event.set()

    def _note(self, incident: Incident) -> None:
        """The event of an incident, if it has one."""
        code = incident.error.code if incident.error is not None else ""
        if incident.cause in _FAILING:
            self.events.failing(STORE_FAILING, str(incident), code)
        elif name := _EVENTS.get(incident.cause):
            self.events.add(name, str(incident), code=code, txid=incident.txid)

    def ask(self, wanted: Wanted, reason: str = "") -> Request:
        """Hand a request over; once the mailbox is closed, it fails at once."""
        request = Request(wanted, reason)
        with self._lock:
            closed = self._closed
            if closed is None:
                self._requests.append(request)
        if closed is not None:
            request.set_exception(closed)
        self._event.set()
        return request

    def take(self) -> tuple[list[Incident], list[Request]]:
        """Everything that came since the last call, in order."""
        with self._lock:
            taken = self._incidents, self._requests
            self._incidents, self._requests = [], []
        return taken

    def close(self, error: ReplicatorError) -> list[Request]:
        """Let every later request fail with ``error``; returns those not taken yet."""
        with self._lock:
            self._closed = self._closed or error
            requests, self._requests = self._requests, []
        self._event.set()
        return requests

    def wake(self) -> None:
        """Wake the reader although nothing came."""
        self._event.set()

    def wait(self, timeout: float) -> bool:
        """Wait for the next wake-up, at most ``timeout`` seconds; True if there was one."""
        woken = self._event.wait(timeout)
        self._event.clear()
        return woken
