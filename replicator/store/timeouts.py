"""Reports calls of a store that get no answer, while they still wait.

A connection that swallows every packet causes no error until the read timeout, but users want to
know within seconds. Owns one alarm, which rests while no call is under way. Refuses to end a call.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from replicator.errors import StoreUnavailable
from replicator.model import Cause, Health, Incident
from replicator.store.base import ObjectInfo, Part, Store, StoreRequest
from replicator.store.wrapper import StoreWrapper
from replicator.system.mailbox import Mailbox
from replicator.system.scheduler import Scheduler, Task

T = TypeVar("T")

log = logging.getLogger(__name__)

PATIENCE = 4.0  # seconds; SeaweedFS lets the loser of a contended write wait for up to 3
SLOWEST_LINK = 1 << 20  # bytes a second; a large body may take that long


@dataclass(frozen=True, slots=True)
class _Call:
    request: StoreRequest
    began: float
    until: float


class TimedStore(StoreWrapper):
    """``store``; reports each call without an answer in time to the mailbox, once."""

    def __init__(
        self,
        store: Store,
        mailbox: Mailbox,
        alarms: Scheduler,
        *,
        patience: float = PATIENCE,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``alarms`` runs the alarm. ``patience`` is the time in seconds for a call without a
        body."""
        super().__init__(store)
        self._alarms = alarms
        self._mailbox = mailbox
        self._logged = ""  # the last warning
        self._patience = patience
        self._now = now
        self._changed = threading.Lock()
        self._calls: dict[int, _Call] = {}
        self._reported: set[int] = set()
        self._count = 0
        self._closed = False
        self._alarm: Task | None = None
        self._set = False  # True if the alarm will run without a wake

    @property
    def health(self) -> Health:
        """Slow while a call has no answer in time."""
        overdue = self.overdue
        return Health("slow" if overdue else "answering", overdue)

    @property
    def overdue(self) -> StoreUnavailable | None:
        """The error of the overdue call that has waited longest, None if no call is overdue."""
        now = self._now()
        with self._changed:
            late = [call for call in self._calls.values() if call.until <= now]
        return self._error(min(late, key=lambda call: call.began)) if late else None

    def _error(self, call: _Call) -> StoreUnavailable:
        waited = self._now() - call.began
        message = f"no answer from {self.url} for {waited:.0f} s"
        return call.request.error(StoreUnavailable, message, code="overdue")

    def around(self, call: str, key: str, proceed: Callable[[], T]) -> T:
        with self._under_way(call, key):
            return proceed()

    def put(
        self,
        key: str,
        body: bytes,
        *,
        metadata: Mapping[str, str] | None = None,
        if_absent: bool = True,
    ) -> None:
        with self._under_way("put", key, len(body)):
            self.inner.put(key, body, metadata=metadata, if_absent=if_absent)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        with self._under_way("get", key, length or 0):
            return self.inner.get(key, start, length)

    def put_part(self, key: str, upload_id: str, number: int, body: bytes) -> Part:
        with self._under_way("put_part", key, len(body)):
            return self.inner.put_part(key, upload_id, number, body)

    def copy_part(
        self, key: str, upload_id: str, number: int, source: ObjectInfo, start: int, length: int
    ) -> Part:
        with self._under_way("copy_part", key, length):
            return self.inner.copy_part(key, upload_id, number, source, start, length)

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        found = self.inner.list(prefix, start_after=start_after)
        while True:
            with self._under_way("list", prefix):  # which fetches a page now and then
                info = next(found, None)
            if info is None:
                return
            yield info

    @contextmanager
    def _under_way(self, operation: str, key: str, size: int = 0) -> Iterator[None]:
        began = self._now()
        until = began + self._patience + size / SLOWEST_LINK
        call = _Call(StoreRequest(operation, key), began, until)
        with self._changed:
            self._count += 1
            number = self._count
            self._calls[number] = call
            self._watch()
        try:
            yield
        finally:
            with self._changed:
                del self._calls[number]
                self._reported.discard(number)

    def _watch(self) -> None:
        if self._set or self._closed:
            return
        self._set = True
        if self._alarm is None:
            self._alarm = self._alarms.add(self._look)
        else:
            self._alarm.wake()

    def _look(self) -> float | None:
        """Report the overdue calls. Returns the seconds until the next call may be overdue, None
        if no call is under way."""
        with self._changed:
            waiting = {n: call for n, call in self._calls.items() if n not in self._reported}
            late = [n for n, call in waiting.items() if call.until <= self._now()]
            self._reported.update(late)
            rest = [call.until for n, call in waiting.items() if n not in late]
            self._set = bool(rest) and not self._closed
            pause = max(0.01, min(rest) - self._now()) if self._set else None
        for number in late:
            self._report(self._error(waiting[number]))
        return pause

    def _report(self, error: StoreUnavailable) -> None:
        if str(error) != self._logged:
            log.warning("%s; trying again", error)
            self._logged = str(error)
        self._mailbox.report(Incident(Cause.STORE_SLOW, error=error))

    def stop(self) -> None:
        """End the alarm. The store works on, without reports."""
        with self._changed:
            self._closed = True
            alarm = self._alarm
        if alarm is not None:
            alarm.stop()

    def close(self) -> None:
        self.stop()
        self.inner.close()
