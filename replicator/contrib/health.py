"""The answer of a health check of an application: is its database replicated now?

Owns: the answer, its age, and the one thread that asks the sidecar. Refuses: to delay a request by
more than its patience, and to show the client an error, a path or an address.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from replicator.errors import ReplicatorError
from replicator.model import ReplicationStatus

OK, UNAVAILABLE = 200, 503  # status codes of HTTP


@dataclass(frozen=True, slots=True)
class HealthTimes:
    """In seconds."""

    fresh: float = 1.0  # an answer serves every check that comes within this time
    patience: float = 1.0  # after a question was sent, checks wait for its answer until then


@dataclass(frozen=True, slots=True)
class HealthReport:
    """A status without addresses and paths. Sizes are bytes, times seconds.

    Without an answer of a sidecar ``healthy`` is False, ``state`` is "unknown", the rest None."""

    healthy: bool
    state: str
    txid: int | None = None
    durable_txid: int | None = None
    pending_bytes: int | None = None
    lag_seconds: float | None = None
    last_wal_sync: int | None = None  # this and the next two: ms since 1970 UTC, as in the status
    last_snapshot: int | None = None
    last_verified_ms: int | None = None

    @property
    def http_status(self) -> int:
        """200 if the database is replicated, otherwise 503."""
        return OK if self.healthy else UNAVAILABLE

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return dataclasses.asdict(self)


UNKNOWN = HealthReport(healthy=False, state="unknown")


class HealthProbe:
    """Asks for the status, from one thread however many checks wait. Any thread, and any forked
    child, may call it.

    ``status`` returns the status or raises ``ReplicatorError``, after any time.
    """

    def __init__(
        self,
        status: Callable[[], ReplicationStatus],
        times: HealthTimes | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._status, self._clock = status, clock
        self._times = times or HealthTimes()
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._asked_at: float | None = None  # None: no question waits for its answer
        self._answer: tuple[float, HealthReport] | None = None  # and the time of its question

    def report(self) -> HealthReport:
        """The state, at most ``fresh`` seconds old; UNKNOWN if no answer came in time."""
        if self._process != os.getpid():  # the thread of the parent process is not here
            self._begin()
        with self._changed:
            now = self._clock()
            if self._answer is None or self._answer[0] + self._times.fresh <= now:
                self._answer = None
                self._ask(now)
                self._wait()
            return UNKNOWN if self._answer is None else self._answer[1]

    def _ask(self, now: float) -> None:
        if self._asked_at is None:
            self._asked_at = now
            threading.Thread(target=self._get, name="replicator-health", daemon=True).start()

    def _wait(self) -> None:
        """Wait for the answer to the open question, no longer than its patience lasts."""
        while self._asked_at is not None:
            left = self._asked_at + self._times.patience - self._clock()
            if left <= 0:
                return
            self._changed.wait(left)

    def _get(self) -> None:
        try:
            report = _reported(self._status())
        except ReplicatorError:
            report = UNKNOWN
        except BaseException:
            self._set(UNKNOWN)
            raise
        self._set(report)

    def _set(self, report: HealthReport) -> None:
        with self._changed:
            if self._asked_at is not None:
                self._answer, self._asked_at = (self._asked_at, report), None
            self._changed.notify_all()


def _reported(status: ReplicationStatus) -> HealthReport:
    return HealthReport(
        healthy=status.healthy,
        state=status.state,
        txid=status.txid,
        durable_txid=status.durable_txid,
        pending_bytes=status.pending_bytes,
        lag_seconds=status.lag_seconds,
        last_wal_sync=status.last_wal_sync,
        last_snapshot=status.last_snapshot,
        last_verified_ms=status.last_verified_ms,
    )
