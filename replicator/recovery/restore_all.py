"""``restore_all()``: every database of a bucket, below one directory, in one command.

Owns the arguments, the one moment of all databases, and the clients of the buckets.
:mod:`.restoration` does the work; the CLI only formats the result.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Self, Unpack

from replicator.archive.point import RestorePoint
from replicator.archive.timespec import to_ms, to_text
from replicator.config.file import ConfigFile
from replicator.errors import ConfigError
from replicator.recovery.api import RestoreLocation, RestoreRequest, address_of, prefix_of, seals_of
from replicator.recovery.limits import DEFAULT_SET
from replicator.recovery.report import Verify
from replicator.recovery.restoration import Restoration
from replicator.recovery.set_report import SetListener, SetMeter, SetReport
from replicator.recovery.sources import chosen, in_bucket, in_file
from replicator.sqlite.connect import Prepare, unprepared
from replicator.store.address import StoreAddress
from replicator.store.base import Store
from replicator.store.pool import SharedStores
from replicator.store.retry import RetryingStore
from replicator.store.sealed import sealed
from replicator.system import clock
from replicator.system.paths import resolved


def restore_all(
    *,
    into: str | os.PathLike[str],
    only: Sequence[str] = (),
    config: str | os.PathLike[str] | None = None,
    timestamp: datetime | str | None = None,
    at: str | None = None,
    dry_run: bool = False,
    overwrite: bool = False,
    allow_older: bool = False,
    verify: Verify = "none",
    prepare: Prepare = unprepared,
    progress: SetListener | None = None,
    **location: Unpack[RestoreLocation],
) -> SetReport:
    """Restore every database of a bucket below the directory ``into``, several at a time.

    Each gets its name below ``prefix`` as its path. ``only`` are patterns of such names, as those
    of the TOML file. With ``config``, the databases are those of that file, which has the bucket,
    and each has its whole prefix as its path. ``location`` is that of
    :func:`~replicator.restore`; with ``config`` it replaces settings of the file.

    ``timestamp`` gives each database its last commit at or before that time; one that began later
    is ``not_yet``. ``at`` is a time as well, or a name that a pin of each database has. Files that
    equal the archive are left alone, so a second call continues an interrupted one; any other
    existing file is refused without ``overwrite``. The other arguments are those of
    :func:`~replicator.restore`.

    The report has an outcome for each database; one that fails stops no other one. Raises
    ``ConfigError`` (arguments, or nothing to choose from), ``NoBackup`` (no database),
    ``DiskFull`` before anything is written, and the errors of the store while it is searched.
    """
    now, point = clock.now_ms(), RestorePoint.of(None, timestamp, at)
    _refuse_txid(point)
    moment = None if point.timestamp is None else _past(to_ms(point.timestamp, now), now)
    request = RestoreRequest(
        point=point if moment is None else RestorePoint(timestamp=to_text(moment)),
        output=None,
        if_missing=False,
        dry_run=dry_run,
        overwrite=overwrite,
        allow_older=allow_older,
        verify=verify,
        prepare=prepare,
    )
    meter = SetMeter(progress)
    with _Stores(location, meter) as stores:
        if config is None:
            found = in_bucket(stores.given(), stores.prefix())
        else:
            given: dict[str, Any] = {name: each for name, each in location.items() if each}
            found = in_file(ConfigFile.load(config, **given), stores.open)
        report = Restoration(request, resolved(into), meter).run(chosen(found, only))
    return replace(report, moment_ms=moment, name=point.name)


def _refuse_txid(point: RestorePoint) -> None:
    if point.txid is not None:
        raise ConfigError(
            f"transaction {point.txid} is of one database, and --all for several",
            setting="at",
            hint="use a time, or a name that replicator mark --config gave to all",
        )


def _past(moment: int, now: int) -> int:
    if moment > now:
        raise ConfigError(
            f"{to_text(moment)} is not over yet",
            setting="timestamp",
            code="out_of_bounds",
            hint="without a time each database is restored to its newest transaction",
        )
    return moment


class _Stores:
    """One client for each bucket, with retries; closed at the end, but for a store of the
    caller."""

    def __init__(self, location: RestoreLocation, meter: SetMeter) -> None:
        self._given, self._location, self._meter = location.get("store"), location, meter
        self._pool = SharedStores()
        self._opened: dict[int, Store] = {}

    def given(self) -> Store:
        """The store of the location."""
        if self._given is not None:
            return self._retrying(sealed(self._given, seals_of(self._location)))
        return self.open(address_of(self._location))

    def prefix(self) -> str:
        if self._given is None:
            return address_of(self._location).prefix
        return prefix_of(self._location)

    def open(self, address: StoreAddress) -> Store:
        store = self._given or self._pool.open(address)
        if id(store) not in self._opened:
            self._opened[id(store)] = self._retrying(store)
        return self._opened[id(store)]

    def _retrying(self, store: Store) -> Store:
        return RetryingStore(store, DEFAULT_SET.each.retries, on_failure=self._meter.trouble)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._pool.close()
