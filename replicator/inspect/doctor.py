"""Checks every condition that a replicator needs, one by one.

Owns the verdicts and the remedies; the probes are in ``store`` and ``sqlite``. The checks leave
nothing in the bucket, and nothing next to the database.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from replicator.config.settings import SqliteReplicatorConfig
from replicator.errors import DatabaseUnusable, LocalIOError, ReplicatorError, StoreUnsafe
from replicator.format.database import HEADER_BYTES, DatabaseHeader, parse_database_header
from replicator.sqlite.mounted import require_unmounted
from replicator.sqlite.wal_mode import CONSEQUENCE
from replicator.store import probe
from replicator.store.address import StoreAddress
from replicator.store.base import Store
from replicator.store.registry import open_store
from replicator.system import host
from replicator.system.database_files import database_reader
from replicator.system.files import Files

RACERS = 16


@dataclass(frozen=True, slots=True)
class Check:
    """One question and its answer. ``remedy`` is the next step unless the verdict is ok."""

    name: str
    verdict: Literal["ok", "warn", "fail"]
    detail: str
    remedy: str = ""


def doctor(config: SqliteReplicatorConfig) -> Iterator[Check]:
    """Every check, for one database and its archive, as the answers come in."""
    yield check_sqlite(host.sqlite_version())
    yield from check_database(config.database)
    yield check_space(config.cache, config.max_cache_bytes)
    yield from check_store(config.address)


def check_sqlite(version: tuple[int, int, int]) -> Check:
    """Checks that the SQLite library of this process is free of the WAL-reset bug."""
    text = ".".join(map(str, version))
    if host.has_wal_reset_bug(version):
        return Check(
            "sqlite library",
            "warn",
            f"SQLite {text} can lose frames when a checkpoint overlaps a reset of the log; the "
            "bug cannot strike while the replicator runs",
            "use SQLite 3.51.3, 3.50.7 or 3.44.6, above all in the application",
        )
    return Check("sqlite library", "ok", f"SQLite {text}")


def check_database(path: Path) -> Iterator[Check]:
    """The file, its journal mode and its file system."""
    yield _answer("database", lambda: _database(path))
    yield check_file_system(host.file_system(path.parent))


def _database(path: Path) -> Check:
    if not path.exists():
        return Check(
            "database",
            "warn",
            f"{path} does not exist yet",
            "the replicator waits for it, or restores it with --auto-restore",
        )
    if not os.access(path, os.R_OK | os.W_OK) or not os.access(path.parent, os.W_OK):
        raise LocalIOError(
            f"{path} or its directory is not writable for this user",
            hint="a reader of a WAL database must be able to lock it",
        )
    require_unmounted(path)
    header = _header(path)
    if header.wal_mode:
        return Check("database", "ok", f"WAL mode, pages of {header.page_size:,} bytes")
    return Check(
        "database",
        "warn",
        "not in WAL mode; the replicator switches it once no other connection uses it",
        f"or do it yourself: PRAGMA journal_mode=WAL. Then {CONSEQUENCE}",
    )


def _header(path: Path) -> DatabaseHeader:
    header = parse_database_header(database_reader(path).pread(HEADER_BYTES, 0))
    if header is None:
        raise DatabaseUnusable(f"{path} is not a SQLite database, or it is encrypted")
    return header


def check_file_system(found: host.FileSystem) -> Check:
    """Network file systems break the shared memory that WAL mode needs."""
    if found.is_network:
        return Check(
            "file system",
            "fail",
            f"{found.kind} on {found.mount} is shared over a network, where WAL mode does not work",
            "move the database to a local disk",
        )
    where = f" on {found.mount}" if found.mount else ""
    return Check("file system", "ok", f"{found.kind}{where}")


def check_space(cache: Path, wanted: int) -> Check:
    """Checks that the disk can hold the cache at its largest."""
    place = next(path for path in (cache, *cache.parents) if path.exists())
    free = Files().disk_free(place)
    detail = f"{free >> 20:,} MiB free, the cache may take {wanted >> 20:,} MiB"
    if free < wanted:
        return Check("disk space", "warn", detail, "free some space or lower --max-cache-bytes")
    return Check("disk space", "ok", detail)


def check_store(address: StoreAddress, store: Store | None = None) -> Iterator[Check]:
    """Reach the bucket, write to it, and race for one key; the first failure ends it."""
    opened = store or open_store(address)
    try:
        for name, ask in (
            ("bucket", _reach),
            ("read back", _read_back),
            ("append once", _race),
            ("large objects", _race_large),
        ):
            answer = _answer(name, lambda ask=ask: ask(opened, address))  # type: ignore[misc]
            yield answer
            if answer.verdict == "fail":
                return
    finally:
        if store is None:
            opened.close()


def _reach(store: Store, address: StoreAddress) -> Check:
    probe.check_reachable(store, address.prefix)
    return Check("bucket", "ok", f"{address.url} can be listed")


def _read_back(store: Store, address: StoreAddress) -> Check:
    try:
        probe.check_readable_back(store, address.prefix)
    except StoreUnsafe as error:
        if error.code != "lost_metadata":
            raise
        return Check(
            "read back",
            "warn",
            "what is stored comes back unchanged, but without its metadata",
            "nothing: every object describes itself; history and verify read more of each",
        )
    return Check("read back", "ok", "what is stored comes back unchanged, with its metadata")


def _race(store: Store, address: StoreAddress) -> Check:
    winners = probe.race_conditional_put(store, address.prefix, writers=RACERS)
    if winners == 1:
        return Check("append once", "ok", f"1 winner of {RACERS} writers to one key")
    return Check(
        "append once",
        "fail",
        f"{winners} winners of {RACERS} writers to one key",
        "this store ignores If-None-Match; two writers could tear the log apart",
    )


def _race_large(store: Store, address: StoreAddress) -> Check:
    """Only a single transaction of more than 48 MiB compressed is appended in parts."""
    name, remedy = (
        "large objects",
        (
            "nothing to do while one replicator writes to this prefix; "
            "two could both append one huge transaction"
        ),
    )
    if not probe.completes_conditionally(store, address.prefix):
        return Check(name, "warn", "completing an upload replaces an object that exists", remedy)
    winners = probe.race_conditional_complete(store, address.prefix, writers=RACERS)
    if winners == 1:
        return Check(name, "ok", f"1 winner of {RACERS} uploads to one key")
    return Check(name, "warn", f"{winners} winners of {RACERS} uploads to one key", remedy)


def _answer(name: str, ask: Callable[[], Check]) -> Check:
    try:
        return ask()
    except ReplicatorError as error:
        return Check(name, "fail", str(error), error.hint)
