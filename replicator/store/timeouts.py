"""A store whose unanswered calls are noticed while they hang, and not only once they time out.

A connection that swallows everything gives no error for as long as the timeout of a read; the
people who watch want to know within seconds. Owns one alarm, which sleeps while no call is
under way.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from replicator.errors import StoreUnavailable
from replicator.store.base import ObjectInfo, Part, Store
from replicator.store.wrapper import StoreWrapper
from replicator.system.scheduler import Scheduler, Task

T = TypeVar("T")

PATIENCE = 4.0  # seconds; SeaweedFS lets the loser of a contended write wait for up to 3
SLOWEST_LINK = 1 << 20  # bytes a second that a large body is granted


@dataclass(frozen=True, slots=True)
class _Call:
    name: str
    began: float
    until: float


class TimedStore(StoreWrapper):
    """``store``; ``on_overdue`` is called, once for each call, when no answer came in time."""

    def __init__(
        self,
        store: Store,
        on_overdue: Callable[[StoreUnavailable], None],
        *,
        alarms: Scheduler | None = None,
        patience: float = PATIENCE,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``alarms`` runs the alarm, beside those of others; by default in a thread of its own."""
        super().__init__(store)
        self._alarms = alarms or Scheduler("replicator-attention", most=1)
        self._own_alarms = alarms is None
        self._on_overdue = on_overdue
        self._patience = patience
        self._now = now
        self._changed = threading.Lock()
        self._calls: dict[int, _Call] = {}
        self._told: set[int] = set()
        self._count = 0
        self._closed = False
        self._alarm: Task | None = None
        self._set = False  # the alarm will look by itself

    @property
    def overdue(self) -> StoreUnavailable | None:
        """The call that has been waiting for longest beyond its time, None if there is none."""
        now = self._now()
        with self._changed:
            late = [call for call in self._calls.values() if call.until <= now]
        return self._error(min(late, key=lambda call: call.began)) if late else None

    def _error(self, call: _Call) -> StoreUnavailable:
        waited = self._now() - call.began
        return StoreUnavailable(f"{call.name}: no answer from {self.url} for {waited:.0f} s")

    def around(self, call: str, key: str, proceed: Callable[[], T]) -> T:
        with self._under_way(f"{call} {key}", 0):
            return proceed()

    def put(
        self,
        key: str,
        body: bytes,
        *,
        metadata: Mapping[str, str] | None = None,
        if_absent: bool = True,
    ) -> None:
        with self._under_way(f"put {key}", len(body)):
            self.inner.put(key, body, metadata=metadata, if_absent=if_absent)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        with self._under_way(f"get {key}", length or 0):
            return self.inner.get(key, start, length)

    def put_part(self, key: str, upload_id: str, number: int, body: bytes) -> Part:
        with self._under_way(f"put_part {key}", len(body)):
            return self.inner.put_part(key, upload_id, number, body)

    def copy_part(
        self, key: str, upload_id: str, number: int, source: ObjectInfo, start: int, length: int
    ) -> Part:
        with self._under_way(f"copy_part {key}", length):
            return self.inner.copy_part(key, upload_id, number, source, start, length)

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        found = self.inner.list(prefix, start_after=start_after)
        while True:
            with self._under_way(f"list {prefix}", 0):  # whose pages are fetched on the way
                info = next(found, None)
            if info is None:
                return
            yield info

    @contextmanager
    def _under_way(self, name: str, size: int) -> Iterator[None]:
        began = self._now()
        call = _Call(name, began, began + self._patience + size / SLOWEST_LINK)
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
                self._told.discard(number)

    def _watch(self) -> None:
        if self._set or self._closed:
            return
        self._set = True
        if self._alarm is None:
            self._alarm = self._alarms.add(self._look)
        else:
            self._alarm.wake()

    def _look(self) -> float | None:
        """Tell of calls that are late; seconds until something may be late, None while no call
        is under way."""
        with self._changed:
            waiting = {n: call for n, call in self._calls.items() if n not in self._told}
            late = [n for n, call in waiting.items() if call.until <= self._now()]
            self._told.update(late)
            rest = [call.until for n, call in waiting.items() if n not in late]
            self._set = bool(rest) and not self._closed
            pause = max(0.01, min(rest) - self._now()) if self._set else None
        for number in late:
            self._on_overdue(self._error(waiting[number]))
        return pause

    def stop(self) -> None:
        """End the alarm; the store goes on without being watched."""
        with self._changed:
            self._closed = True
            alarm = self._alarm
        if alarm is not None:
            alarm.stop()
        if self._own_alarms:
            self._alarms.stop()

    def close(self) -> None:
        self.stop()
        self.inner.close()
