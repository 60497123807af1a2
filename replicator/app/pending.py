"""What waits in a queue of writes, and the policies for a queue that is full.

    block         the caller waits for room, for ``timeout`` seconds at most
    reject        the caller gets ``QueueFull`` at once
    drop_oldest   the oldest write that waits is given up

Owns the order: first in, first out. Refuses to know what an item is.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar, get_args

from replicator.errors import ConfigError, QueueFull, ReplicatorError

T = TypeVar("T")
Overflow = Literal["block", "reject", "drop_oldest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """``timeout`` is in seconds, for ``block``; None: without an end. ``batch`` is the number of
    writes that may share a transaction."""

    capacity: int = 10_000
    overflow: Overflow = "block"
    timeout: float | None = None
    batch: int = 500

    def __post_init__(self) -> None:
        if self.overflow not in get_args(Overflow):
            known = ", ".join(get_args(Overflow))
            raise ConfigError(
                f"there is no policy {self.overflow!r}", setting="overflow", hint=f"use {known}"
            )
        if self.capacity < 1 or self.batch < 1:
            raise ConfigError("capacity and batch are at least 1", setting="capacity")


class Pending(Generic[T]):
    """Items of any threads for one consumer."""

    def __init__(self, limits: QueueLimits) -> None:
        self._limits = limits
        self._items: deque[tuple[int, T]] = deque()
        self.newest = 0  # number of the item that was added last
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)
        self._closed = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> T | None:
        """Add one; the item that was given up for it, if any. ``QueueFull``; ``ReplicatorError``
        with the code ``database_closed`` after :meth:`close`."""
        with self._lock:
            dropped = self._make_room() if self._is_full() else None
            self._require_open()
            self.newest += 1
            self._items.append((self.newest, item))
            self._arrived.notify()
            return dropped

    def take(self, most: int, wait: float) -> list[tuple[int, T]]:
        """The oldest items with their numbers, up to ``most``; empty if none came within ``wait``
        seconds."""
        with self._lock:
            if not self._items and not self._closed:
                self._arrived.wait(wait)
            taken = [self._items.popleft() for _ in range(min(most, len(self._items)))]
            self._room.notify(len(taken))
            return taken

    def close(self) -> None:
        """Refuse further items; those that wait can still be taken."""
        with self._lock:
            self._closed = True
            self._arrived.notify_all()
            self._room.notify_all()

    def _is_full(self) -> bool:
        return len(self._items) >= self._limits.capacity

    def _make_room(self) -> T | None:
        if self._limits.overflow == "drop_oldest":
            return self._items.popleft()[1]
        if self._limits.overflow == "reject" or not self._wait_for_room():
            raise QueueFull(
                f"{self._limits.capacity} writes wait already", capacity=self._limits.capacity
            )
        return None

    def _wait_for_room(self) -> bool:
        timeout = self._limits.timeout
        until = None if timeout is None else time.monotonic() + timeout
        while self._is_full() and not self._closed:
            if not self._room.wait(None if until is None else until - time.monotonic()):
                return not self._is_full()
        return True

    def _require_open(self) -> None:
        if self._closed:
            raise ReplicatorError(
                "the queue was closed", code="database_closed", hint="open the database again"
            )
