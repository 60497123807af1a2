"""Restores a set of databases below one directory: places, plans, room, and then the restores.

All are planned before the first is restored: so the disk space that they need is known before
anything is written, and a file that is complete already costs no download. Owns: the order of that
work, its threads, and the rule that one database that fails stops no other one. Refuses: to
restore a database whose name leaves the directory, to replace a file that differs without
``overwrite``, and to try database after database on a store that is away or a disk that is full.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from replicator.archive.point import NEWEST_POINT, RestorePoint
from replicator.errors import (
    Cancelled,
    DiskFull,
    GapError,
    ReplicatorError,
    StoreUnavailable,
    TargetExists,
)
from replicator.model import RestoreReport
from replicator.recovery.api import RestoreRequest, RestoreRun, plan_run, restore_run
from replicator.recovery.existing import is_complete
from replicator.recovery.limits import DEFAULT_SET, SetLimits
from replicator.recovery.ownership import make_parents
from replicator.recovery.partial import Partial
from replicator.recovery.places import collisions, folds_names, refusal, require_below
from replicator.recovery.progress import Meter
from replicator.recovery.publish import Existing, check_output
from replicator.recovery.room import PlannedFile, Room
from replicator.recovery.set_report import RestoredDatabase, Result, SetMeter, SetReport
from replicator.recovery.sources import Source
from replicator.store.base import Store
from replicator.system.files import Files, local_error
from replicator.system.parallel import in_parallel

NOT_TRIED = "not_tried"

P = TypeVar("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class _Task:
    """A database that has a place below the directory."""

    name: str
    store: Store
    prefix: str
    url: str
    output: Path

    def ended(
        self,
        result: Result,
        report: RestoreReport | None = None,
        error: ReplicatorError | None = None,
    ) -> RestoredDatabase:
        return RestoredDatabase(self.name, self.url, result, report, error)


@dataclass(frozen=True, slots=True)
class _Planned:
    """A database that is still to be restored."""

    task: _Task
    report: RestoreReport

    @property
    def ended(self) -> RestoredDatabase:
        """The outcome of a dry run."""
        return self.task.ended("planned", self.report)


class Restoration:
    """One command on a set of databases. ``request`` is what all of them have in common."""

    def __init__(
        self,
        request: RestoreRequest,
        into: Path,
        meter: SetMeter,
        *,
        files: Files | None = None,
        limits: SetLimits = DEFAULT_SET,
    ) -> None:
        self._request, self._into, self._meter = request, into, meter
        self._files = files or Files()
        self._limits = limits
        self._each = limits.each
        self._outage = _Outage(limits.databases)

    def run(self, sources: Sequence[Source]) -> SetReport:
        """Every outcome. ``DiskFull`` if the planned databases have no room, and before a file is
        written."""
        began = time.monotonic()
        self._each = self._limits.of_one(len(sources))
        self._meter.begin("plan", len(sources))
        tasks, ended = self._place(sources)
        todo: list[_Planned] = []
        for each in self._in_parallel(self._plan, tasks):
            if isinstance(each, _Planned):
                todo.append(each)
            else:
                ended.append(each)
        room = self._room(todo)
        if self._request.dry_run:
            ended += [each.ended for each in todo]
        else:
            room.require(self._into)
            self._meter.begin("restore", len(todo), sum(e.report.downloaded_bytes for e in todo))
            ended += self._in_parallel(self._restore, todo)
        return SetReport(
            str(self._into),
            None,
            tuple(sorted(ended, key=lambda each: each.name)),
            room.needed,
            room.free,
            time.monotonic() - began,
        )

    # ------------------------------------------------------------------------------- places

    def _place(self, sources: Sequence[Source]) -> tuple[list[_Task], list[RestoredDatabase]]:
        """The databases that have a place, and the outcome of the others."""
        tasks: list[_Task] = []
        ended: list[RestoredDatabase] = []
        for each in sources:
            error = each.error or refusal(each.name, self._into)
            if error is not None or each.store is None:
                ended.append(RestoredDatabase(each.name, each.url, "failed", error=error))
            else:
                output = self._into / each.name
                tasks.append(_Task(each.name, each.store, each.prefix, each.url, output))
        bad = self._collisions([task.name for task in tasks])
        ended += [t.ended("failed", error=bad[t.name]) for t in tasks if t.name in bad]
        for outcome in ended:
            self._meter.passed(outcome)
        return [task for task in tasks if task.name not in bad], ended

    def _collisions(self, names: Sequence[str]) -> Mapping[str, ReplicatorError]:
        """Those of names that differ in case count only if the file system takes them for equal,
        which a dry run cannot try."""
        bad = collisions(names, folded=True)
        if not bad or self._request.dry_run:
            return collisions(names, folded=False)
        make_parents(self._into, self._files)
        return bad if folds_names(self._into, self._files) else collisions(names, folded=False)

    # ---------------------------------------------------------------------- one database

    def _plan(self, task: _Task) -> _Planned | RestoredDatabase:
        """Its plan, or its outcome if nothing is to be done."""

        def attempt() -> _Planned | RestoredDatabase:
            require_below(self._into, task.output, self._files)
            plan = plan_run(self._request, self._run_of(task))
            if is_complete(task.output, plan, self._files):
                self._tidy(task.output)
                return task.ended("complete", plan.report)
            self._require_free(task.output, plan.report)
            return _Planned(task, plan.report)

        done = self._attempt(task, attempt)
        if isinstance(done, RestoredDatabase):
            self._meter.passed(done)
        else:
            self._meter.passed(done.ended if self._request.dry_run else None)
        return done

    def _restore(self, planned: _Planned) -> RestoredDatabase:
        """At a moment, the planned transaction is restored, so that the search for it is made
        once. Otherwise the newest: so the parts of an interrupted restore stay of use."""
        task, plan = planned.task, planned.report

        def attempt() -> RestoredDatabase:
            require_below(self._into, task.output, self._files)
            past = self._request.point != NEWEST_POINT
            point = RestorePoint(plan.txid) if past else NEWEST_POINT
            report = restore_run(replace(self._request, point=point), self._run_of(task))
            lost = report.lost_txids + (plan.lost_txids if past else 0)
            return task.ended("restored", replace(report, lost_txids=lost))

        done = self._attempt(task, attempt)
        self._meter.passed(done)
        return done

    def _attempt(self, task: _Task, work: Callable[[], P]) -> P | RestoredDatabase:
        """The result of ``work``, or the outcome of its failure."""
        try:
            self._outage.refuse(task.store)
            done = work()
            self._outage.note(task.store, None)
            return done
        except Cancelled:
            raise
        except ReplicatorError as error:
            self._outage.note(task.store, error)
            return task.ended("not_yet" if _began_later(error) else "failed", error=error)
        except OSError as error:
            return task.ended("failed", error=local_error(error, task.output))

    def _run_of(self, task: _Task) -> RestoreRun:
        meter = Meter(self._meter.of_one())
        return RestoreRun(task.store, task.prefix, task.output, self._files, meter, self._each)

    def _tidy(self, output: Path) -> None:
        """Remove the directory of a restore that was killed after its file had its name."""
        parts = Partial(output, self._files)
        if not self._request.dry_run and self._files.exists(parts.directory):
            with contextlib.suppress(ReplicatorError), parts.held():
                parts.clear()

    def _require_free(self, output: Path, plan: RestoreReport) -> None:
        """``TargetExists`` if the restore would be refused because of the files that are there."""
        overwrite = self._request.overwrite
        if not overwrite and self._files.exists(output) and not output.is_dir():
            raise TargetExists(
                f"{output} differs from the archive at transaction {plan.txid}",
                path=output,
                hint="--overwrite replaces it; --timestamp with the time of an earlier run finds "
                "complete what that run restored",
            )
        check_output(output, Existing.REPLACE if overwrite else Existing.REFUSE)

    # -------------------------------------------------------------------------- all of them

    def _room(self, todo: Iterable[_Planned]) -> Room:
        overwrite = self._request.overwrite
        wanted = (
            PlannedFile.of(each.task.output, each.report.size, self._files, overwrite=overwrite)
            for each in todo
        )
        return Room.of(wanted, self._into, self._files, at_once=self._limits.databases)

    def _in_parallel(self, work: Callable[[P], R], items: Iterable[P]) -> Iterator[R]:
        return in_parallel(work, items, self._limits.databases, abandon=self._meter.abandon)


def _began_later(error: ReplicatorError) -> bool:
    """True if the archive begins with its first transaction, which is later than the moment."""
    return (
        isinstance(error, GapError)
        and error.code == "outside_times"
        and error.restorable is not None
        and error.restorable[0] == 1
    )


class _Outage:
    """Failures in a row that the next database would meet, too: its store does not answer, or the
    disk is full. After ``most`` of them no further database is tried."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._row: dict[int | None, int] = {}  # by store; None: the disk
        self._last: dict[int | None, ReplicatorError] = {}

    def note(self, store: Store, error: ReplicatorError | None) -> None:
        with self._lock:
            for cause, kind in ((id(store), StoreUnavailable), (None, DiskFull)):
                if isinstance(error, kind) and error.code != NOT_TRIED:
                    self._row[cause] = self._row.get(cause, 0) + 1
                    self._last[cause] = error
                elif error is None:
                    self._row[cause] = 0

    def refuse(self, store: Store) -> None:
        """The error of the last database, if it is not worth to try another one."""
        with self._lock:
            for cause in (id(store), None):
                if self._row.get(cause, 0) >= self._most:
                    last = self._last[cause]
                    raise type(last)(
                        f"not tried, because {self._most} databases in a row failed: {last}",
                        hint="mend the cause, and run the same command again: it continues",
                        code=NOT_TRIED,
                    )
