"""Retries: of a busy database, and of a store that does not answer.

Owns the judgement which failure is transient, and the loop. Refuses to repeat anything else: a
statement whose effect is unknown is never run twice.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from replicator.errors import NotRunning, ReplicatorError, StoreUnavailable
from replicator.store.retry import RetryPolicy, backoff

T = TypeVar("T")
BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})


def is_busy(error: BaseException) -> bool:
    """True if SQLite gave up waiting for a lock; the statement had no effect."""
    code = getattr(error, "sqlite_errorcode", 0)
    return isinstance(error, sqlite3.OperationalError) and code & 0xFF in BUSY


def is_transient(error: BaseException) -> bool:
    """True if the store, or the sidecar, may answer the same request later."""
    return isinstance(error, StoreUnavailable | NotRunning)


@dataclass(frozen=True, slots=True)
class Retries:
    """Repeats work while ``again`` accepts its error, within the time of ``policy``.

    ``pause`` and ``now`` are in seconds. Safe to use from any thread.
    """

    policy: RetryPolicy = field(default_factory=lambda: RetryPolicy(0.005, 0.25, deadline=5.0))
    again: Callable[[BaseException], bool] = is_busy
    pause: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random

    def run(self, work: Callable[[], T], repeated: Callable[[], None] = lambda: None) -> T:
        """The result of the first attempt that succeeds; ``repeated`` is called before each
        further one. The last error is raised when the time is over."""
        began, attempt = self.now(), 0
        while True:
            try:
                return work()
            except (sqlite3.Error, ReplicatorError) as error:
                attempt += 1
                if not self.again(error) or not self._time_is_left(began):
                    raise
            repeated()
            self.pause(backoff(attempt, self.policy, self.chance))

    def _time_is_left(self, began: float) -> bool:
        return self.policy.allows(self.now() - began, known=True)


BUSY_RETRIES = Retries()


def within(timeout: float) -> Retries:
    """Retries of requests to the replicator, for ``timeout`` seconds."""
    return Retries(RetryPolicy(0.05, 1.0, deadline=timeout), is_transient)


def left(until: float) -> float:
    """Seconds until a time of :func:`time.monotonic`."""
    return max(0.0, until - time.monotonic())
