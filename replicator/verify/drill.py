"""``drill()``: restores to a scratch directory, checks the result, and records it in the bucket.

Owns the scratch directory, which it always removes, and the checks beyond the restore's own proof:
SQLite's integrity_check and the user's statements. A drill that fails is recorded too, and raises
the error.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from replicator.archive.keys import Keys
from replicator.archive.locate import no_backup, open_archive, url_of
from replicator.archive.point import NEWEST_POINT, RestorePoint
from replicator.archive.records import FAILED, PROVEN, REFUTED, add_record
from replicator.errors import (
    CheckFailed,
    DamageError,
    DiskFull,
    GapError,
    Inconclusive,
    ReplicatorError,
)
from replicator.model import RestoreReport
from replicator.recovery.api import restore
from replicator.recovery.progress import Progress
from replicator.sqlite.connect import Prepare, unprepared
from replicator.sqlite.isolated import DEFAULT_LIMITS, SqlLimits, check_database, require_true
from replicator.store.address import StoreAddress
from replicator.store.base import Store
from replicator.system import clock
from replicator.system.files import Files
from replicator.system.scratch import scratch_directory

RESERVE = 64 << 20  # bytes of disk a drill leaves free, at least …
RESERVE_SHARE = 10  # … and one part in so many of the database
NOTED = (DamageError, GapError, CheckFailed)  # failures of the archive, not of this machine


@dataclass(frozen=True, slots=True)
class DrillReport:
    """The restore, the checks, and the key of the record (None: not recorded).

    ``inconclusive`` are the reasons why a check could not be made here. The restore is exact all
    the same, because checksums have proved each page, and is recorded as proven.
    """

    restore: RestoreReport
    checked: tuple[str, ...]
    at_ms: int
    seconds: float
    recorded: str | None
    unrecorded: str | None  # why not, where it was meant to be
    inconclusive: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """10 if a check could not be made, else 0."""
        return Inconclusive.exit_code if self.inconclusive else 0


def drill_at(
    address: StoreAddress,
    *,
    assertions: Sequence[str] = (),
    scratch: Path | None = None,
    point: RestorePoint = NEWEST_POINT,
    record: bool = True,
    progress: Callable[[Progress], None] | None = None,
    prepare: Prepare = unprepared,
    sql: SqlLimits = DEFAULT_LIMITS,
) -> DrillReport:
    """:func:`drill` of the database an address names, or of the only one there."""
    with open_archive(address) as (store, prefix):
        return drill(
            store,
            prefix,
            assertions=assertions,
            scratch=scratch,
            point=point,
            record=record,
            progress=progress,
            prepare=prepare,
            sql=sql,
        )


def drill(
    store: Store,
    prefix: str,
    *,
    assertions: Sequence[str] = (),
    scratch: Path | None = None,
    point: RestorePoint = NEWEST_POINT,
    record: bool = True,
    progress: Callable[[Progress], None] | None = None,
    files: Files | None = None,
    recorder: Store | None = None,
    prepare: Prepare = unprepared,
    sql: SqlLimits = DEFAULT_LIMITS,
) -> DrillReport:
    """Prove that a transaction (default: the newest) can be restored, in ``scratch`` (default:
    the system's temporary directory).

    Each of ``assertions`` is one SQL statement that must give one true value. It can only read
    (else ``ConfigError``), and has the limits ``sql``, as SQLite's check has. ``recorder`` is the
    store for the record, if reading is throttled. ``prepare`` receives each connection first, to
    register the collations, functions and extensions of the application. Raises ``NoBackup``,
    ``DamageError``, ``GapError``, ``CheckFailed``, ``DiskFull``, the errors of the store, and
    ``NewerFormat``, which is no damage and is not recorded.
    """
    began = time.monotonic()
    at_ms = clock.now_ms()
    files = files or Files()
    with scratch_directory(scratch, files) as directory:
        try:
            report = _restored(
                store,
                prefix,
                directory / "drill.db",
                files,
                progress,
                point,
            )
            path = Path(report.output)
            checks = _checked(path, assertions, sql, prepare)
        except NOTED as error:
            if record and point == NEWEST_POINT:
                _record_failure(recorder or store, prefix, at_ms, error)
            raise
    recorded = unrecorded = None
    if record:
        recorded, unrecorded = _record(recorder or store, prefix, at_ms, report, checks)
    return DrillReport(
        report,
        checks.made,
        at_ms,
        time.monotonic() - began,
        recorded,
        unrecorded,
        checks.inconclusive,
    )


def _restored(
    store: Store,
    prefix: str,
    output: Path,
    files: Files,
    progress: Callable[[Progress], None] | None,
    point: RestorePoint,
) -> RestoreReport:
    plan = restore(
        store=store,
        prefix=prefix,
        output=output,
        txid=point.txid,
        timestamp=point.timestamp,
        at=point.name or None,
        dry_run=True,
    )
    if plan is None:
        raise no_backup(url_of(store, prefix))
    _require_room(plan.size, output.parent, files)
    report = restore(
        store=store,
        prefix=prefix,
        output=output,
        txid=point.txid,
        timestamp=point.timestamp,
        at=point.name or None,
        progress=progress,
        files=files,
    )
    assert report is not None  # there was a plan
    if report.avoided:
        raise DamageError(
            f"{report.avoided[0]} is damaged; transaction {report.txid} can still "
            "be restored, around it",
            key=report.avoided[0],
        )
    return report


def _require_room(size: int, directory: Path, files: Files) -> None:
    needed = size + max(RESERVE, size // RESERVE_SHARE)
    free = files.disk_free(directory)
    if free < needed:
        raise DiskFull(
            f"{directory.parent}: a drill needs {needed} bytes, {free} are free",
            path=directory.parent,
            hint="choose another directory with --scratch",
        )


@dataclass(frozen=True, slots=True)
class _Checks:
    """The checks that were made, and the reasons why others could not be."""

    made: tuple[str, ...]
    inconclusive: tuple[str, ...]


def _checked(path: Path, assertions: Sequence[str], limits: SqlLimits, prepare: Prepare) -> _Checks:
    """Make all checks, because one that fails matters more than one that cannot be made."""
    reasons = list(check_database(path, full=True, prepare=prepare, limits=limits))
    made = [] if reasons else ["SQLite's integrity_check"]
    for sql in assertions:
        try:
            require_true(path, sql, prepare=prepare, limits=limits)
            made.append(sql)
        except Inconclusive as error:
            reasons.append(str(error))
    return _Checks(tuple(made), tuple(reasons))


def _record(
    store: Store, prefix: str, at_ms: int, report: RestoreReport, checks: _Checks
) -> tuple[str | None, str | None]:
    details = asdict(report) | {"checked": checks.made, "inconclusive": checks.inconclusive}
    del details["output"]
    try:
        return add_record(store, Keys(prefix), PROVEN, report.txid, at_ms, details).key, None
    except ReplicatorError as error:
        return None, str(error)


def _record_failure(store: Store, prefix: str, at_ms: int, error: ReplicatorError) -> None:
    """The failure itself matters more than its record."""
    with contextlib.suppress(ReplicatorError):
        outcome = REFUTED if isinstance(error, CheckFailed) else FAILED
        add_record(
            store,
            Keys(prefix),
            outcome,
            0,
            at_ms,
            {"error": str(error), "kind": type(error).__name__, "key": getattr(error, "key", "")},
        )
