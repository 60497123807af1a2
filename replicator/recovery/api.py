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
from typing import Literal, TypedDict, Unpack

from replicator.archive.keys import Keys, default_prefix
from replicator.archive.listing import find_databases
from replicator.archive.locate import open_bucket, sole_database, url_of
from replicator.archive.timespec import to_ms
from replicator.config.integrity_key import read_keys
from replicator.errors import ConfigError, NoBackup
from replicator.format.integrity import Integrity
from replicator.model import RestoreReport
from replicator.recovery.fetch import Fetcher
from replicator.recovery.limits import DEFAULT_LIMITS, RecoveryLimits
from replicator.recovery.ownership import make_parents
from replicator.recovery.partial import Partial
from replicator.recovery.planner import Planner, Recovered
from replicator.recovery.point_in_time import committed_at, txid_at
from replicator.recovery.progress import Meter, Progress
from replicator.recovery.publish import Existing, check_output, publish
from replicator.recovery.start import Act, Archive, Asked, Command, Local, decide_start, log_line
from replicator.recovery.view import ArchiveView
from replicator.sqlite.connect import Prepare, unprepared
from replicator.sqlite.isolated import check_database
from replicator.sqlite.local_file import examine_file, has_log
from replicator.store.address import StoreAddress
from replicator.store.base import Store
from replicator.store.retry import RetryingStore
from replicator.store.sealed import sealed
from replicator.system import clock
from replicator.system.files import Files, about
from replicator.system.paths import resolved

__all__ = ["Progress", "find_databases", "restore"]

log = logging.getLogger(__name__)

Verify = Literal["none", "quick", "full"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreRequest:
    """One restore as it was asked for, after the checks that need no store. ``output`` and
    ``prefix`` are None until they are known. ``move_aside``: files that have the name of the
    output move into ``NAME.stale-TIME``."""

    txid: int | None
    timestamp: datetime | str | None
    output: str | os.PathLike[str] | None
    if_missing: bool
    dry_run: bool
    overwrite: bool
    allow_older: bool
    verify: Verify
    prepare: Prepare = unprepared
    move_aside: bool = False

    def __post_init__(self) -> None:
        if self.txid is not None and self.timestamp is not None:
            raise ConfigError(
                "both a txid and a timestamp are given", hint="choose one", setting="timestamp"
            )
        if self.txid is not None and self.txid < 1:
            raise ConfigError(
                f"there is no transaction {self.txid}",
                hint="txids begin at 1",
                setting="txid",
                code="out_of_bounds",
            )
        if self.verify not in ("none", "quick", "full"):
            raise ConfigError(
                f"verify: {self.verify!r} is none of none, quick, full",
                setting="verify",
                code="invalid_value",
            )
        if self.timestamp is not None:
            to_ms(self.timestamp, clock.now_ms())


class RestoreLocation(TypedDict, total=False):
    """The archive to restore from: a bucket and a prefix, a URL, or a parsed address."""

    url: str
    bucket: str
    prefix: str
    endpoint_url: str | None
    region: str | None
    profile: str | None
    integrity_key: str | os.PathLike[str] | None
    address: StoreAddress


@dataclass(frozen=True, slots=True)
class _Run:
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
    if_missing: bool = False,
    dry_run: bool = False,
    overwrite: bool = False,
    allow_older: bool = False,
    verify: Verify = "none",
    progress: Callable[[Progress], None] | None = None,
    store: Store | None = None,
    files: Files | None = None,
    prepare: Prepare = unprepared,
    **location: Unpack[RestoreLocation],
) -> RestoreReport | None:
    """Rebuild a database as it was after one transaction, prove it, and publish the file.

    ``txid`` or ``timestamp`` (aware, else UTC; or RFC 3339, or ``"2 hours ago"``) name the
    transaction: the one, or the last committed by then; default: the newest. ``output``
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

    Raises ``ConfigError`` (arguments, several databases), ``TargetExists``, ``GapError`` (the
    transaction cannot be reached; names the window), ``DamageError`` (names the object),
    ``StoreUnavailable``, ``AccessDenied``, ``LocalIOError``. Whichever it raises, the old database
    is whole, and the downloaded parts stay next to it for the next attempt; only if the disk
    fails when its directory is synced at the very end is the new one there already.
    """
    request = RestoreRequest(
        txid=txid,
        timestamp=timestamp,
        output=output,
        if_missing=if_missing,
        dry_run=dry_run,
        overwrite=overwrite,
        allow_older=allow_older,
        verify=verify,
        prepare=prepare,
    )
    limits, meter = DEFAULT_LIMITS, Meter(progress)
    if store is not None:
        store, prefix = sealed(store, _integrity(location)), _prefix(location)
        return recover(request, store, prefix, files=files or Files(), meter=meter, limits=limits)
    address = _address(location)
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


def _prefix(location: RestoreLocation) -> str:
    """The prefix in a store that the caller opened."""
    address = location.get("address")
    return location.get("prefix", "") if address is None else address.prefix


def _address(location: RestoreLocation) -> StoreAddress:
    address = location.get("address") or _named(location)
    return replace(address, integrity=_integrity(location))


def _integrity(location: RestoreLocation) -> Integrity | None:
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
        return _untouched(Path(output), url_of(store, given))  # even if the store is away
    prefix = given or sole_database(store)
    run = _Run(store, prefix, _path(output, prefix), files, meter, limits)
    if request.if_missing and _is_kept(run.output):
        return _untouched(run.output, run.url)
    return _restore(request, run)


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


def _untouched(path: Path, url: str) -> RestoreReport:
    with about(path):
        size = path.stat().st_size
    return RestoreReport(
        output=str(resolved(path)),
        url=url,
        generation="",
        txid=0,
        committed_at=None,
        pages=0,
        page_size=0,
        size=size,
        checksum=0,
        snapshot_txid=0,
        objects=0,
        downloaded_bytes=0,
        seconds=0.0,
        verified="nothing: the output exists and was left alone",
    )


def _restore(request: RestoreRequest, run: _Run) -> RestoreReport:
    files = run.files
    existing = _existing(request, run.output)
    check_output(run.output, existing)
    view = ArchiveView(run.store, Keys(run.prefix))
    txid = _wanted(request, view)
    planner = Planner(view, txid, allow_older=request.allow_older, detours=True, limits=run.limits)
    if request.dry_run:
        return _planned(planner, view, run)
    planner.plan()  # so that nothing is made on disk when there is nothing to restore
    make_parents(run.output.parent, files)
    parts = Partial(run.output, files)
    with parts.held():
        with Fetcher(run.store, run.meter, run.limits) as fetcher:
            done = planner.run(fetcher, parts, files, run.meter)
        reasons = _sqlite_check(request, Path(parts.database))
        run.meter.phase("publish")
        publish(parts, run.output, _marker(done), existing, files)
    return _report(done, request.verify, reasons, run)


def _sqlite_check(request: RestoreRequest, path: Path) -> tuple[str, ...]:
    """Make the check that was asked for; the reasons why it is inconclusive. ``DamageError``."""
    if request.verify == "none":
        return ()
    return check_database(path, full=request.verify == "full", prepare=request.prepare)


def _wanted(request: RestoreRequest, view: ArchiveView) -> int | None:
    """The txid that was asked for; loads the view with the objects it needs."""
    if request.timestamp is None:
        view.load(request.txid)
        return request.txid
    now = clock.now_ms()
    when = to_ms(request.timestamp, now)
    view.load(None, complete=True)
    return txid_at(view, when, now, older=request.allow_older)


def _marker(done: Recovered) -> dict[str, object]:
    rebuilt = done.rebuilt
    return {
        "generation": done.plan.snapshot.generation,
        "txid": rebuilt.txid,
        "pages": rebuilt.state.pages,
        "page_size": rebuilt.page_size,
        "checksum": f"{rebuilt.state.checksum:016x}",
    }


def _report(
    done: Recovered, verify: Verify, inconclusive: tuple[str, ...], run: _Run
) -> RestoreReport:
    rebuilt, plan = done.rebuilt, done.plan
    return RestoreReport(
        output=str(run.output),
        url=run.url,
        generation=plan.snapshot.generation,
        txid=rebuilt.txid,
        committed_at=rebuilt.committed_at,
        pages=rebuilt.state.pages,
        page_size=rebuilt.page_size,
        size=rebuilt.state.pages * rebuilt.page_size,
        checksum=rebuilt.state.checksum,
        snapshot_txid=plan.snapshot.txid,
        objects=plan.objects,
        downloaded_bytes=run.meter.downloaded,
        seconds=run.meter.seconds,
        verified=_proof(
            done, "none" if inconclusive else verify, sealed=run.store.integrity is not None
        ),
        inconclusive=inconclusive,
        lost_txids=done.lost,
        avoided=done.avoided,
    )


def _proof(done: Recovered, verify: Verify, *, sealed: bool) -> str:
    resumed = " but for the parts an earlier attempt left, which were hashed again"
    proof = [
        "SHA-256 of every object" + (resumed if done.rebuilt.resumed else ""),
        "WAL checksums",
        "database checksum",
    ]
    if done.rebuilt.sealed:
        proof.append("seals" if sealed else "no seal, because no integrity key was given")
    if verify != "none":
        proof.append("SQLite's " + ("integrity_check" if verify == "full" else "quick_check"))
    return ", ".join(proof)


def _planned(planner: Planner, view: ArchiveView, run: _Run) -> RestoreReport:
    """The report of a dry run: sizes are those of the plan, figures those of the metadata."""
    plan = planner.plan_to_known_end()
    facts = view.proved(plan.segments[-1]) if plan.segments else None
    trailer = view.reader.tail(plan.snapshot).trailer
    page_size = trailer.payload_bytes // max(1, trailer.pages)
    end = facts.last_txid if facts else trailer.last_txid
    txid = end if plan.txid is None else plan.txid
    lost, avoided = planner.losses(txid)
    return RestoreReport(
        output=str(run.output),
        url=run.url,
        generation=plan.snapshot.generation,
        txid=txid,
        committed_at=committed_at(view, txid),
        pages=facts.pages if facts else trailer.pages,
        page_size=page_size,
        size=(facts.pages if facts else trailer.pages) * page_size,
        checksum=facts.checksum_after if facts else trailer.checksum_after,
        snapshot_txid=plan.snapshot.txid,
        objects=plan.objects,
        downloaded_bytes=plan.size,
        seconds=run.meter.seconds,
        verified="nothing: this is a plan",
        lost_txids=lost,
        avoided=avoided,
    )
