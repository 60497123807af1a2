"""The result of several restores in one command: one outcome for each database, and the sums.

Owns: the words for an outcome, the exit code of a set, and the progress that several threads
advance. Refuses: to draw anything.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from replicator.errors import Cancelled, Inconclusive, ReplicatorError
from replicator.model import RestoreReport
from replicator.recovery.progress import Listener, Progress

Result = Literal["restored", "complete", "planned", "not_yet", "failed"]

# Exit codes, the worst first: lost data, then causes that a person has to remove, then those that
# pass. A set has that of its worst database.
SEVERITY = (3, 4, 1, 6, 5, 7, 8, 2, 9, Inconclusive.exit_code, 0)


@dataclass(frozen=True, slots=True)
class RestoredDatabase:
    """The outcome of one database of several.

    ``name`` is its path below the directory. ``result``: "restored"; "complete", the file was there
    already and equals the archive; "planned", in a dry run; "not_yet", it began later than the time
    that was asked for; or "failed", with the ``error``.
    """

    name: str
    url: str
    result: Result
    report: RestoreReport | None = None
    error: ReplicatorError | None = None

    @property
    def exit_code(self) -> int:
        """That of the error; 10 if a check could not be made."""
        if self.error is not None:
            return self.error.exit_code if self.result == "failed" else 0
        return Inconclusive.exit_code if self.report and self.report.inconclusive else 0

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "name": self.name,
            "url": self.url,
            "result": self.result,
            "report": None if self.report is None else asdict(self.report),
            "error": None if self.error is None else self.error.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class SetReport:
    """The outcomes by name, and the moment that was asked for (ms), or the ``name`` of pins; with
    neither, each has its newest state. ``needed_bytes`` is the disk space that the restores take,
    ``free_bytes`` was free before."""

    into: str
    moment_ms: int | None
    databases: tuple[RestoredDatabase, ...]
    needed_bytes: int
    free_bytes: int
    seconds: float
    name: str = ""

    @property
    def counts(self) -> dict[str, int]:
        """The number of databases of each result."""
        return dict(Counter(each.result for each in self.databases))

    @property
    def exit_code(self) -> int:
        """The worst of :data:`SEVERITY`."""
        return min((each.exit_code for each in self.databases), key=SEVERITY.index, default=0)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "into": self.into,
            "moment_ms": self.moment_ms,
            "name": self.name,
            "counts": self.counts,
            "needed_bytes": self.needed_bytes,
            "free_bytes": self.free_bytes,
            "seconds": self.seconds,
            "exit_code": self.exit_code,
            "databases": [each.to_dict() for each in self.databases],
        }


@dataclass(frozen=True, slots=True)
class SetProgress:
    """Phases in order: search, plan, restore. ``done`` of ``total`` databases have passed the
    phase, ``failed`` of all have failed. Bytes are downloaded ones. ``ended`` is the database that
    has its outcome now, ``trouble`` the reason why a request is being repeated."""

    phase: str
    done: int = 0
    total: int = 0
    failed: int = 0
    done_bytes: int = 0
    total_bytes: int = 0
    ended: RestoredDatabase | None = None
    trouble: str = ""


SetListener = Callable[[SetProgress], None]


class SetMeter:
    """Adds up the progress of several restores. After :meth:`abandon`, each restore that reports
    progress ends with ``Cancelled``."""

    def __init__(self, listener: SetListener | None) -> None:
        self._listener = listener
        self._lock = threading.Lock()
        self._now = SetProgress("search")
        self._abandoned = False

    def begin(self, phase: str, total: int, total_bytes: int = 0) -> None:
        self._advance(SetProgress(phase, 0, total, self._now.failed, 0, total_bytes))

    def passed(self, ended: RestoredDatabase | None = None) -> None:
        """A database has passed the phase, or has its outcome."""
        with self._lock:
            failed = self._now.failed + (ended is not None and ended.result == "failed")
            self._now = replace(self._now, done=self._now.done + 1, failed=failed)
            self._tell(replace(self._now, ended=ended))

    def outcomes(self, ended: Iterable[RestoredDatabase]) -> None:
        """Databases that have their outcome before the first phase."""
        for each in ended:
            self.passed(each)

    def abandon(self) -> None:
        self._abandoned = True

    def check(self) -> None:
        if self._abandoned:
            raise Cancelled("the restore was stopped; run it again to continue")

    def trouble(self, error: Exception) -> None:
        """A request failed and will be repeated."""
        self.check()
        with self._lock:
            self._tell(replace(self._now, trouble=str(error)))

    def of_one(self) -> Listener:
        """A listener for one restore, whose downloaded bytes count for the set."""
        seen = 0

        def listen(now: Progress) -> None:
            nonlocal seen
            self.check()
            if now.phase in ("segments", "snapshot") and not now.trouble:
                seen, before = now.done_bytes, seen
                self._add(max(0, seen - before))

        return listen

    def _add(self, size: int) -> None:
        with self._lock:
            self._now = replace(self._now, done_bytes=self._now.done_bytes + size)
            self._tell(self._now)

    def _advance(self, now: SetProgress) -> None:
        with self._lock:
            self._now = now
            self._tell(now)

    def _tell(self, now: SetProgress) -> None:
        if self._listener is not None:
            self._listener(now)
