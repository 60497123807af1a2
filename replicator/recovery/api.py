"""``restore()``: rebuilds a database from its archive, to any transaction.

Owns the arguments, the database's prefix, and the report. :mod:`.planner` does the work; the CLI
only formats the result.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TypedDict, Unpack

from replicator.archive.keys import Keys, default_prefix
from replicator.archive.listing import find_databases
from replicator.archive.locate import open_bucket, sole_database, url_of
from replicator.archive.pins import found
from replicator.archive.point import NEWEST_POINT, RestorePoint
from replicator.archive.seals import warn_unauthenticated
from replicator.archive.timespec import to_ms
from replicator.config.integrity_key import read_keys
from replicator.errors import ConfigError, NoBackup
from replicator.format.integrity import Integrity
from replicator.model import RestoreReport
from replicator.recovery.fetch import Fetcher
from replicator.recovery.known_archive import KnownArchive
from replicator.recovery.limits import DEFAULT_LIMITS, RecoveryLimits
from replicator.recovery.ownership import make_parents
from replicator.recovery.partial import Partial
from replicator.recovery.planner import Planner, Recovered
from replicator.recovery.point_in_time import load_for
from replicator.recovery.progress import Meter, Progress
from replicator.recovery.publish import Existing, check_output, publish
from replicator.recovery.report import (
    PlannedRestore,
    Verify,
    planned,
    proof_of,
    restored,
    untouched,
)
from replicator.recovery.start import Act, Archive, Asked, Command, Local, decide_start, log_line
from replicator.recovery.unsent import refuse_older
from replicator.sqlite.connect import Prepare, unprepared
from replicator.sqlite.isolated import check_database
from replicator.sqlite.local_file import examine_file, has_log
from replicator.store.address import StoreAddress
from replicator.store.base import Store
from replicator.store.retry import RetryingStore
from replicator.store.sealed import sealed
from replicator.system import clock
from replicator.system.files import Files
from replicator.system.paths import resolved

__all__ = ["Progress", "find_databases", "restore"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreRequest:
    """One restore as it was asked for, after the checks that need no store. ``output`` and
    ``prefix`` are None until they are known. ``move_aside``: files that have the name of the
    output move into ``NAME.stale-TIME``."""

    point: RestorePoint
    output: str | os.PathLike[str] | None
    if_missing: bool
    dry_run: bool
    overwrite: bool
    allow_older: bool
    verify: Verify
    prepare: Prepare = unprepared
    move_aside: bool = False

    def __post_init__(self) -> None:
        if self.verify not in ("none", "quick", "full"):
            raise ConfigError(
                f"verify: {self.verify!r} is none of none, quick, full",
                setting="verify",
                code="invalid_value",
            )
        if self.point.timestamp is not None:
            to_ms(self.point.timestamp, clock.now_ms())


class RestoreLocation(TypedDict, total=False):
    """The archive to restore from: a bucket and a prefix, a URL, a parsed address, or an open
    store."""

    url: str
    bucket: str
    prefix: str
    endpoint_url: str | None
    region: str | None
    profile: str | None
    integrity_key: str | os.PathLike[str] | None
    address: StoreAddress
    store: Store | None


@dataclass(frozen=True, slots=True)
class RestoreRun:
    """One restore under way, once its prefix and its output are known."""

    store: Store
    prefix: str
    output: Path
    files: Files
    meter: Meter
    limits: RecoveryLimits

    @property
    def url(self) -> str:
        return url_of(self.store, self.prefix)


def restore(
    *,
    output: str | os.PathLike[str] | None = None,
    txid: int | None = None,
    timestamp: datetime | str | None = None,
    at: str | None = None,
    if_missing: bool = False,
    dry_run: bool = False,
    overwrite: bool = False,
    allow_older: bool = False,
    verify: Verify = "none",
    progress: Callable[[Progress], None] | None = None,
    files: Files | None = None,
    prepare: Prepare = unprepared,
    **location: Unpack[RestoreLocation],
) -> RestoreReport | None:
    """Rebuild a database as it was after one transaction, prove it, and publish the file.

    ``txid`` or ``timestamp`` (aware, else UTC; or RFC 3339, or ``"2 hours ago"``) name the
    transaction: the one, or the last committed by then; ``at`` is either of them, or the name of
    a pin; default: the newest. ``output``
    defaults to the database's own name here. ``location`` names the archive: ``bucket`` or ``url``
    with ``prefix``, ``endpoint_url``, ``region`` and ``profile``, or in their place a parsed
    ``address``. Without ``prefix`` the one database of the bucket is meant. ``store`` is the store
    itself, which then is not closed.

    Returns None when there is no backup. With ``if_missing`` an existing output stays unchanged,
    which the report states; a file that is empty or has no table counts as missing, and moves into
    ``NAME.stale-TIME``. ``dry_run`` reports the plan and writes nothing.

    ``verify`` adds SQLite's quick_check or integrity_check. ``prepare`` receives the connection
    first, to register the collations, functions and extensions of the application. Where this
    SQLite library cannot make the check, the file is published all the same, because checksums
    have proved each page, and ``inconclusive`` in the report has the reasons.

    The newest state is refused (``RefusedError``, code ``cache_waits``) if the cache next to the
    output holds transactions after it; name the transaction to get it all the same.

    Raises ``ConfigError`` (arguments, several databases), ``TargetExists``, ``GapError`` (the
    transaction cannot be reached; names the window), ``DamageError`` (names the object),
    ``StoreUnavailable``, ``AccessDenied``, ``LocalIOError``. Whichever it raises, the old database
    is whole, and the downloaded parts stay next to it for the next attempt; only if the disk
    fails when its directory is synced at the very end is the new one there already.

    >>> restore(url=url, prefix="app.db", output="copy.db").output.endswith("copy.db")
    True
    """
    request = RestoreRequest(
        point=RestorePoint.of(txid, timestamp, at),
        output=output,
        if_missing=if_missing,
        dry_run=dry_run,
        overwrite=overwrite,
        allow_older=allow_older,
        verify=verify,
        prepare=prepare,
    )
    limits, meter = DEFAULT_LIMITS, Meter(progress)
    store = location.get("store")
    if store is not None:
        store, prefix = sealed(store, seals_of(location)), prefix_of(location)
        return recover(request, store, prefix, files=files or Files(), meter=meter, limits=limits)
    address = address_of(location)
    prefix = address.prefix
    with open_bucket(address, limits.retries, meter.trouble) as opened:
        return _answer(request, opened, prefix, files or Files(), meter, limits)


def recover(
    request: RestoreRequest,
    store: Store,
    prefix: str,
    *,
    files: Files,
    meter: Meter,
    limits: RecoveryLimits,
) -> RestoreReport | None:
    """A restore from an open store, with limits of the caller. ``prefix`` may be empty, as for
    :func:`restore`, which this serves."""
    retrying = RetryingStore(store, limits.retries, on_failure=meter.trouble)
    return _answer(request, retrying, prefix, files, meter, limits)


def prefix_of(location: RestoreLocation) -> str:
    """The prefix in a store that the caller opened."""
    address = location.get("address")
    return location.get("prefix", "") if address is None else address.prefix


def address_of(location: RestoreLocation) -> StoreAddress:
    """The parsed address; ``ConfigError`` if it names no bucket, or two."""
    address = location.get("address") or _named(location)
    return replace(address, integrity=seals_of(location))


def seals_of(location: RestoreLocation) -> Integrity | None:
    """The integrity keys of a location."""
    keys, address = location.get("integrity_key"), location.get("address")
    if keys is not None:
        return read_keys(keys)
    return None if address is None else address.integrity


def _named(location: RestoreLocation) -> StoreAddress:
    url, bucket = location.get("url", ""), location.get("bucket", "")
    if bool(url) == bool(bucket):
        raise ConfigError(
            "name the bucket or the url", hint="--bucket NAME or --url s3://…", setting="bucket"
        )
    return StoreAddress.parse(
        url or f"s3://{bucket}",
        prefix=location.get("prefix", ""),
        endpoint_url=location.get("endpoint_url"),
        region=location.get("region"),
        profile=location.get("profile"),
    )


def _answer(
    request: RestoreRequest,
    store: Store,
    prefix: str,
    files: Files,
    meter: Meter,
    limits: RecoveryLimits,
) -> RestoreReport | None:
    try:
        return _report_of(request, store, Keys(prefix).prefix, files, meter, limits)
    except NoBackup:
        return None


def _report_of(
    request: RestoreRequest,
    store: Store,
    given: str,
    files: Files,
    meter: Meter,
    limits: RecoveryLimits,
) -> RestoreReport:
    output = request.output
    if request.if_missing and output is not None and _is_kept(Path(output)):
        return untouched(resolved(output), url_of(store, given))  # even if the store is away
    prefix = given or sole_database(store)
    run = RestoreRun(store, prefix, _path(output, prefix), files, meter, limits)
    if request.if_missing and _is_kept(run.output):
        return untouched(run.output, run.url)
    return restore_run(request, run)


def _is_kept(output: Path) -> bool:
    """True if the output exists, for a restore of what is missing."""
    asked, local = Asked(Command.IF_MISSING), Local[examine_file(output).name]
    outcome = decide_start(local, Archive.UNASKED, asked)
    log.info("%s", log_line(local, Archive.UNASKED, asked, outcome))
    return outcome.act is Act.KEEP


def _existing(request: RestoreRequest, output: Path) -> Existing:
    if request.overwrite or request.dry_run:
        return Existing.REPLACE
    if request.move_aside:
        return Existing.MOVE_ASIDE
    empty = request.if_missing and not has_log(output)
    return Existing.MOVE_EMPTY if empty else Existing.REFUSE


def _path(output: str | os.PathLike[str] | None, prefix: str) -> Path:
    """Absolute, symbolic links resolved, so that the file behind a link is replaced."""
    name = output if output is not None else default_prefix(prefix or "restored.db")
    return resolved(name)


def restore_run(request: RestoreRequest, run: RestoreRun) -> RestoreReport:
    """The restore, or with ``dry_run`` its plan. ``NoBackup`` if there is none."""
    files = run.files
    existing = _existing(request, run.output)
    check_output(run.output, existing)
    known, planner = _planner(request, run)
    planner.plan()  # so that nothing is made on disk when there is nothing to restore
    if request.point == NEWEST_POINT and not request.move_aside:  # a start has sent what waited
        refuse_older(run.output, known.keys, known.index.head)
    if request.dry_run:
        return planned(planner, known, run.output, run.url, run.meter).report
    make_parents(run.output.parent, files)
    parts = Partial(run.output, files)
    with parts.held():
        with Fetcher(run.store, run.meter, run.limits) as fetcher:
            done = planner.run(fetcher, parts, files, run.meter)
        reasons = _sqlite_check(request, Path(parts.database))
        run.meter.phase("publish")
        publish(parts, run.output, _marker(done), existing, files)
    verify = "none" if reasons else request.verify
    has_key = run.store.integrity is not None
    proof = proof_of(done, verify, sealed=has_key)
    report = restored(done, run.output, run.url, run.meter, proof=proof, inconclusive=reasons)
    if has_key or not done.rebuilt.sealed:
        return report
    warn_unauthenticated(run.url)
    return replace(report, unauthenticated=True)


def plan_run(request: RestoreRequest, run: RestoreRun) -> PlannedRestore:
    """The plan, whatever has the name of the output. ``NoBackup`` if there is none."""
    known, planner = _planner(request, run)
    return planned(planner, known, run.output, run.url, run.meter)


def _planner(request: RestoreRequest, run: RestoreRun) -> tuple[KnownArchive, Planner]:
    known = KnownArchive(run.store, Keys(run.prefix))
    txid = load_for(known, found(run.store, known.keys, request.point), older=request.allow_older)
    return known, Planner(
        known, txid, allow_older=request.allow_older, detours=True, limits=run.limits
    )


def _sqlite_check(request: RestoreRequest, path: Path) -> tuple[str, ...]:
    """Make the check that was asked for; the reasons why it is inconclusive. ``DamageError``."""
    if request.verify == "none":
        return ()
    return check_database(path, full=request.verify == "full", prepare=request.prepare)


def _marker(done: Recovered) -> dict[str, object]:
    rebuilt = done.rebuilt
    return {
        "generation": done.plan.snapshot.generation,
        "txid": rebuilt.txid,
        "pages": rebuilt.state.pages,
        "page_size": rebuilt.page_size,
        "checksum": f"{rebuilt.state.checksum:016x}",
    }
