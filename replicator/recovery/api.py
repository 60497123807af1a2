"""``restore()``: a database back from its bucket, to any transaction.

Owns: the arguments, the database's prefix, and the report. The work is done in
:mod:`replicator.recovery`; the CLI only formats what this returns.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from replicator.archive.catalog import Catalog, find_databases
from replicator.archive.keys import Keys, default_prefix
from replicator.archive.timespec import to_ms
from replicator.errors import ConfigError, NoBackup
from replicator.model import RestoreReport
from replicator.recovery.fetch import Fetcher
from replicator.recovery.partial import Partial
from replicator.recovery.progress import Meter, Progress
from replicator.recovery.publish import check_target, publish
from replicator.recovery.recovery import Recovered, Recovery
from replicator.sqlite.check import check_database
from replicator.store.address import StoreAddress
from replicator.store.base import Store
from replicator.store.registry import open_store
from replicator.store.retry import RESTORE_RETRIES, RetryingStore
from replicator.system import clock
from replicator.system.files import Files

__all__ = ["Progress", "find_databases", "restore"]

Verify = Literal["none", "quick", "full"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What was asked for, after the checks that need no store."""

    txid: int | None
    timestamp: datetime | str | None
    overwrite: bool
    allow_older: bool
    verify: Verify
    url: str
    prefix: str
    output: Path


def restore(
    *,
    url: str = "",
    bucket: str = "",
    prefix: str = "",
    endpoint_url: str | None = None,
    region: str | None = None,
    profile: str | None = None,
    output: str | os.PathLike[str] | None = None,
    txid: int | None = None,
    timestamp: datetime | str | None = None,
    if_missing: bool = False,
    dry_run: bool = False,
    overwrite: bool = False,
    allow_older: bool = False,
    verify: Verify = "none",
    progress: Callable[[Progress], None] | None = None,
    address: StoreAddress | None = None,
    store: Store | None = None,
    files: Files | None = None,
) -> RestoreReport | None:
    """Rebuild a database as it was after one transaction, prove it, and put it in its place.

    ``txid`` or ``timestamp`` (aware, else UTC; or RFC 3339, or ``"2 hours ago"``) name the
    transaction: the one, or the last committed by then; default: the newest. ``output``
    defaults to the database's own name here. Without ``prefix`` the one database of the bucket
    is meant. ``address`` stands for bucket, url and prefix where they were parsed already;
    ``store`` for the store itself, which is not closed then.

    Returns None when there is no backup. With ``if_missing`` an existing output is left alone
    and the report says so. ``dry_run`` reports the plan and writes nothing.

    Raises ``ConfigError`` (arguments, several databases), ``TargetExists``, ``GapError`` (the
    target cannot be reached; names the window), ``DamageError`` (names the object),
    ``StoreUnavailable``, ``AccessDenied``, ``LocalIOError``. Whatever it raises, the old database
    is whole, and what was downloaded is kept beside it for the next attempt; only if the disk
    fails when its directory is synced at the very end is the new one there already.
    """
    _check(txid=txid, timestamp=timestamp, verify=verify)
    started, meter = time.monotonic(), Meter(progress)
    if store is None or address is not None:
        address = _place(address, url, bucket, prefix, endpoint_url, region, profile)
        prefix = address.prefix
    given = Keys(prefix).prefix
    with _opened(store, address, meter) as opened:
        if if_missing and output is not None and Path(output).exists():
            return _untouched(Path(output), _address(opened, given))  # even with the store away
        found = given or _only_database(opened)
        if found is None:
            return None
        path = _output(output, found)
        if if_missing and path.exists():
            return _untouched(path, _address(opened, found))
        wish = _Wish(
            txid=txid,
            timestamp=timestamp,
            overwrite=overwrite,
            allow_older=allow_older,
            verify=verify,
            url=_address(opened, found),
            prefix=found,
            output=path,
        )
        try:
            return _restore(opened, wish, files or Files(), meter, started, dry_run=dry_run)
        except NoBackup:
            return None


def _check(*, txid: int | None, timestamp: datetime | str | None, verify: str) -> None:
    if txid is not None and timestamp is not None:
        raise ConfigError("both a txid and a timestamp are given", hint="choose one")
    if txid is not None and txid < 1:
        raise ConfigError(f"there is no transaction {txid}", hint="txids begin at 1")
    if verify not in ("none", "quick", "full"):
        raise ConfigError(f"verify: {verify!r} is none of none, quick, full")
    if timestamp is not None:
        to_ms(timestamp, clock.now_ms())


def _place(
    address: StoreAddress | None,
    url: str,
    bucket: str,
    prefix: str,
    endpoint_url: str | None,
    region: str | None,
    profile: str | None,
) -> StoreAddress:
    if address is not None:
        return address
    if bool(url) == bool(bucket):
        raise ConfigError("name the bucket or the url", hint="--bucket NAME or --url s3://…")
    return StoreAddress.parse(
        url or f"s3://{bucket}",
        prefix=prefix,
        endpoint_url=endpoint_url,
        region=region,
        profile=profile,
    )


@contextlib.contextmanager
def _opened(store: Store | None, address: StoreAddress | None, meter: Meter) -> Iterator[Store]:
    """A store that retries, closed only if it was opened here."""
    if store is not None:
        yield RetryingStore(store, RESTORE_RETRIES, on_failure=meter.trouble)
        return
    assert address is not None  # one of the two is given
    with contextlib.closing(open_store(address)) as opened:
        yield RetryingStore(opened, RESTORE_RETRIES, on_failure=meter.trouble)


def _only_database(store: Store) -> str | None:
    """The prefix of the one database in the bucket; None if there is none."""
    choices = find_databases(store)
    if len(choices) > 1:
        raise ConfigError(
            f"the bucket holds {len(choices)} databases: {', '.join(choices)}",
            hint="choose one with --prefix",
        )
    return choices[0] if choices else None


def _output(output: str | os.PathLike[str] | None, prefix: str) -> Path:
    """Absolute, symbolic links resolved, so that a link's own target is replaced."""
    name = output if output is not None else default_prefix(prefix or "restored.db")
    return Path(os.path.realpath(name))


def _address(store: Store, prefix: str) -> str:
    root = store.url if store.url.endswith("/") else f"{store.url}/"
    return f"{root}{prefix}"


def _untouched(path: Path, url: str) -> RestoreReport:
    return RestoreReport(
        output=os.path.realpath(path),
        url=url,
        generation="",
        txid=0,
        committed_at=None,
        pages=0,
        page_size=0,
        size=path.stat().st_size,
        checksum=0,
        snapshot_txid=0,
        objects=0,
        downloaded_bytes=0,
        seconds=0.0,
        verified="nothing: the output exists and was left alone",
    )


def _restore(
    store: Store, wish: _Wish, files: Files, meter: Meter, started: float, *, dry_run: bool
) -> RestoreReport:
    check_target(wish.output, overwrite=wish.overwrite or dry_run)
    catalog = Catalog(store, wish.prefix)
    recovery = Recovery(catalog, _target(catalog, wish), allow_older=wish.allow_older, detours=True)
    if dry_run:
        return _planned(recovery, catalog, wish, started)
    recovery.plan()  # so that nothing is made on disk when there is nothing to restore
    files.mkdir(wish.output.parent)
    notes = Partial(wish.output, files)
    with notes.held():
        with Fetcher(store, meter) as fetcher:
            done = recovery.run(fetcher, notes, files, meter)
        if wish.verify != "none":
            check_database(notes.database, full=wish.verify == "full")
        meter.phase("publish")
        publish(notes, wish.output, _note(done), overwrite=wish.overwrite, files=files)
    return _report(done, wish, meter, time.monotonic() - started)


def _target(catalog: Catalog, wish: _Wish) -> int | None:
    """The txid that was asked for; the catalog is loaded with what it needs."""
    if wish.timestamp is None:
        catalog.load(wish.txid)
        return wish.txid
    now = clock.now_ms()
    when = to_ms(wish.timestamp, now)
    catalog.load(None, complete=True)
    return catalog.txid_at(when, now, older=wish.allow_older)


def _note(done: Recovered) -> dict[str, object]:
    rebuilt = done.rebuilt
    return {
        "generation": done.plan.snapshot.generation,
        "txid": rebuilt.txid,
        "pages": rebuilt.state.pages,
        "page_size": rebuilt.page_size,
        "checksum": f"{rebuilt.state.checksum:016x}",
    }


def _report(done: Recovered, wish: _Wish, meter: Meter, seconds: float) -> RestoreReport:
    rebuilt, plan = done.rebuilt, done.plan
    return RestoreReport(
        output=str(wish.output),
        url=wish.url,
        generation=plan.snapshot.generation,
        txid=rebuilt.txid,
        committed_at=rebuilt.committed_at,
        pages=rebuilt.state.pages,
        page_size=rebuilt.page_size,
        size=rebuilt.state.pages * rebuilt.page_size,
        checksum=rebuilt.state.checksum,
        snapshot_txid=plan.snapshot.txid,
        objects=plan.objects,
        downloaded_bytes=meter.downloaded,
        seconds=seconds,
        verified=_proof(done, wish.verify),
        lost_txids=done.lost,
        avoided=done.avoided,
    )


def _proof(done: Recovered, verify: Verify) -> str:
    resumed = " but for the parts an earlier attempt left, which were hashed again"
    proof = [
        "SHA-256 of every object" + (resumed if done.rebuilt.resumed else ""),
        "WAL checksums",
        "database checksum",
    ]
    if verify != "none":
        proof.append("SQLite's " + ("integrity_check" if verify == "full" else "quick_check"))
    return ", ".join(proof)


def _planned(recovery: Recovery, catalog: Catalog, wish: _Wish, started: float) -> RestoreReport:
    """The report of a dry run: sizes are those of the plan, figures those of the metadata."""
    plan = recovery.plan_to_known_end()
    facts = catalog.proved(plan.segments[-1].item) if plan.segments else None
    trailer = catalog.tail(plan.snapshot).trailer
    page_size = trailer.payload_bytes // max(1, trailer.pages)
    end = facts.last_txid if facts else trailer.last_txid
    txid = end if plan.target is None else plan.target
    return RestoreReport(
        output=str(wish.output),
        url=wish.url,
        generation=plan.snapshot.generation,
        txid=txid,
        committed_at=catalog.committed_at(txid),
        pages=facts.pages if facts else trailer.pages,
        page_size=page_size,
        size=(facts.pages if facts else trailer.pages) * page_size,
        checksum=facts.checksum_after if facts else trailer.checksum_after,
        snapshot_txid=plan.snapshot.txid,
        objects=plan.objects,
        downloaded_bytes=plan.size,
        seconds=time.monotonic() - started,
        verified="nothing: this is a plan",
    )
