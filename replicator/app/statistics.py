"""Counts and times of the operations of one database.

Owns the tallies and their frozen picture. Refuses clocks: the caller measures. Any thread.
"""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class OperationCount:
    """Operations of one kind. ``seconds`` is their sum, ``longest`` the longest of them."""

    count: int = 0
    failed: int = 0
    seconds: float = 0.0
    longest: float = 0.0


@dataclass(frozen=True, slots=True)
class DatabaseStatistics:
    """The figures of a database since it was opened; ``wal_bytes`` is the size of the WAL file."""

    operations: dict[str, OperationCount]
    busy_retries: int  # further attempts after another process kept a lock
    readers_open: int
    readers_free: int
    queue_waiting: int
    queue_done: int
    queue_failed: int
    queue_refused: int  # by the policy `reject`, or after the time of `block`
    queue_dropped: int  # by the policy `drop_oldest`
    queue_commits: int  # transactions of the queue
    wal_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return dataclasses.asdict(self)


class Tally:
    """The count of one kind of operation, while it grows."""

    __slots__ = ("_count", "_failed", "_lock", "_longest", "_seconds")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = self._failed = 0
        self._seconds = self._longest = 0.0

    def add(self, seconds: float, failed: bool) -> None:
        with self._lock:
            self._count += 1
            self._failed += failed
            self._seconds += seconds
            if seconds > self._longest:  # noqa: PLR1730 - a call of max() would double the cost
                self._longest = seconds

    def picture(self) -> OperationCount:
        with self._lock:
            return OperationCount(self._count, self._failed, self._seconds, self._longest)
