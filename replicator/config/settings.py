"""The settings: one table, whose rows are the fields of :class:`SqliteReplicatorConfig`.

Everything else about a setting follows from its row: the check of its value, its environment
variable, its option of ``replicator run``, its key in the TOML file, its place in the JSON Schema
and in the documentation. Owns names, defaults and bounds, and the rules that connect two settings.
Refuses to read files or to contact anything. A config that exists can work, as far as its values
show.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from replicator.config.database_path import database_path, refuse_url
from replicator.config.integrity_key import read_keys
from replicator.config.table import Section, Setting, Where, row, setting, table_of
from replicator.config.units import (
    COUNT,
    DAY,
    DURATION,
    GIB,
    HOUR,
    KIB,
    MIB,
    NUMBER,
    PATH,
    SIZE,
    SPAN,
    SWITCH,
    TEXT,
    choice,
)
from replicator.errors import ConfigError
from replicator.model import Retention
from replicator.store.address import Checksums, StoreAddress
from replicator.system.cache_place import cache_of
from replicator.system.paths import expanded, resolved

Expectation: TypeAlias = Literal["any", "existing", "new"]

_KEEP = Retention()
DATABASE, BUCKET, TIMING, SEGMENTS, RETENTION, DRILLS = Section
NOWHERE, DATABASE_ONLY, FILE = Where.NOWHERE, Where.RUN | Where.DATABASE, Where.FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteReplicatorConfig:
    """Settings of one replicator. Sizes are bytes, times seconds; ``ConfigError`` otherwise.

    The destination is ``bucket`` and ``prefix`` (default: the file name of the database), or
    ``url``, that is ``s3://bucket/prefix`` or ``file:///directory``.

    >>> SqliteReplicatorConfig(db_path="app.db", bucket="backups").address.url
    's3://backups/app.db'
    """

    db_path: str | os.PathLike[str] = field(
        metadata=row(
            PATH,
            DATABASE,
            "the database file, also as a URL (sqlite:///…, file:…); symbolic links are resolved",
            where=NOWHERE,
        )
    )
    bucket: str = setting("", TEXT, BUCKET, "name of the bucket", short="-b", metavar="NAME")
    prefix: str = setting(
        "",
        TEXT,
        BUCKET,
        "prefix of the object keys in the bucket; each database needs its own",
        shown="the file name of the database",
        short="-p",
        metavar="PREFIX",
    )
    url: str = setting(
        "",
        TEXT,
        BUCKET,
        "s3://bucket/prefix instead of bucket and prefix, or file:///dir to store in a directory",
        metavar="URL",
    )
    endpoint_url: str | None = setting(
        None, TEXT, BUCKET, "address of an S3-compatible server", shown="AWS", metavar="URL"
    )
    region: str | None = setting(
        None,
        TEXT,
        BUCKET,
        "region of the bucket",
        shown="from the AWS configuration",
        metavar="NAME",
    )
    profile: str | None = setting(
        None,
        TEXT,
        BUCKET,
        "profile in the AWS configuration",
        shown="from the AWS configuration",
        metavar="NAME",
    )
    checksums: Checksums = setting(
        "when_required",
        choice(*get_args(Checksums)),
        BUCKET,
        "when_supported adds a checksum of S3 to each request; some servers refuse it",
        where=FILE,
    )
    integrity_key: str | os.PathLike[str] | None = setting(
        None,
        PATH,
        BUCKET,
        "file with the keys that seal the objects, one per line; the first one seals, objects "
        "that none of them sealed are refused",
        shown="none",
        metavar="FILE",
    )
    cache_dir: str | os.PathLike[str] | None = setting(
        None,
        PATH,
        DATABASE,
        "directory of the disk cache, on a local disk; each database needs its own",
        where=DATABASE_ONLY,
        shown=".{name}-replicator next to the database",
    )
    max_cache_bytes: int = setting(
        GIB,
        SIZE,
        DATABASE,
        "maximum size of the disk cache, which holds segments while the store is unreachable",
        least=MIB,
    )
    auto_restore: bool = setting(
        False,
        SWITCH,
        DATABASE,
        "restore the database first if its file is missing, empty or without tables, and the "
        "bucket has a backup",
    )
    switch_in_use: bool = setting(
        False,
        SWITCH,
        DATABASE,
        "switch a database to WAL mode even while other connections use it; otherwise the switch "
        "waits until none does",
    )
    take_over: bool = setting(
        False,
        SWITCH,
        DATABASE,
        "start a new generation from the local database, even if another writer owns the archive "
        "or is ahead of it; older generations stay restorable",
    )
    restore: bool = setting(
        False,
        SWITCH,
        DATABASE,
        "if the archive does not continue with the local database, move the file aside, into "
        "NAME.stale-TIME, and restore",
    )
    standby: bool | None = setting(
        None,
        SWITCH,
        DATABASE,
        "while another sidecar on this machine replicates the database, wait for its end and then "
        "continue; off: exit code 8",
        shown="around a command, and with a file of several databases",
    )
    expect: Expectation = setting(
        "any",
        choice(*get_args(Expectation)),
        DATABASE,
        "refuse to start unless the bucket has an archive of this database (existing), or has none "
        "(new)",
    )
    wait_store: float = setting(
        60.0,
        DURATION,
        DATABASE,
        "how long a start that needs an answer of the bucket waits for an unreachable one",
    )
    allow_unsafe_store: bool = setting(
        False,
        SWITCH,
        DATABASE,
        "accept a store that ignores If-None-Match; only where no second replicator ever writes "
        "to this prefix",
    )
    sync_interval: float = setting(
        1.0,
        DURATION,
        TIMING,
        "minimum time between two uploads under steady writes; see upload-burst",
    )
    upload_burst: int = setting(
        10,
        COUNT,
        TIMING,
        "number of commits that are uploaded at once after a rest, without sync-interval between "
        "them; each interval adds one",
        least=1,
        most=1000,
    )
    poll_interval: float = setting(
        1.0,
        DURATION,
        TIMING,
        "maximum time until a commit is noticed when no file event arrives",
        least=0.01,
        most=HOUR,
        where=FILE,
    )
    busy_timeout: float = setting(
        5.0,
        DURATION,
        TIMING,
        "how long to wait for a lock of the application when replication starts",
        most=HOUR,
        where=FILE,
    )
    snapshot_interval: float = setting(HOUR, DURATION, TIMING, "minimum time between two snapshots")
    snapshot_ratio: float = setting(
        0.5,
        NUMBER,
        TIMING,
        "take a snapshot when the segments since the last one exceed this fraction of its size",
        where=FILE,
    )
    snapshot_max_age: float = setting(
        DAY,
        DURATION,
        TIMING,
        "take a snapshot when the last one is older than this and newer commits exist",
        least=1,
        where=FILE,
    )
    segment_max_bytes: int = setting(
        32 * MIB,
        SIZE,
        SEGMENTS,
        "end a segment when this much of the WAL is not yet captured",
        least=128 * KIB,
        most=GIB,
        where=FILE,
    )
    compression_level: int = setting(3, COUNT, SEGMENTS, "zstd compression level", least=1, most=22)
    drill_interval: float = setting(
        0.0,
        DURATION,
        DRILLS,
        "how often to restore to a scratch directory and check the result, for example 24h; "
        "skipped if nothing was committed since the last drill",
        shown="never",
    )
    drill_bandwidth: int = setting(
        10 * MIB, SIZE, DRILLS, "maximum bytes per second that a drill downloads; 0: no limit"
    )
    drill_scratch: str | os.PathLike[str] | None = setting(
        None,
        PATH,
        DRILLS,
        "directory for drills, with free space for the whole database",
        shown="in the cache directory",
    )
    drill_extension: str | os.PathLike[str] | None = setting(
        None,
        PATH,
        DRILLS,
        "SQLite extension that the schema needs, loaded before a drill checks the result; its code "
        "runs in this process",
        shown="none",
        metavar="PATH",
    )
    keep: bool = setting(
        True,
        SWITCH,
        RETENTION,
        "merge segments, and delete objects that no retention rule keeps; off: the bucket only "
        "grows",
    )
    keep_every_transaction: float = setting(
        _KEEP.every_transaction, SPAN, RETENTION, "how long every transaction stays restorable"
    )
    keep_hourly: float = setting(
        _KEEP.hourly, SPAN, RETENTION, "how long the last state of each hour stays restorable"
    )
    keep_daily: float = setting(
        _KEEP.daily, SPAN, RETENTION, "how long the last state of each day stays restorable"
    )
    keep_weekly: float = setting(
        _KEEP.weekly,
        SPAN,
        RETENTION,
        "how long the last state of each week, Monday to Sunday, stays restorable",
    )
    keep_monthly: float = setting(
        _KEEP.monthly, SPAN, RETENTION, "how long the last state of each month stays restorable"
    )
    keep_snapshots: int = setting(
        _KEEP.snapshots,
        COUNT,
        RETENTION,
        "how many of the newest snapshots stay, whatever their age",
        least=1,
    )

    source: Path = field(init=False, repr=False, compare=False)
    """The database file as it was given, absolute. The replicator resolves it at each look."""
    database: Path = field(init=False, repr=False, compare=False)
    """The same with symlinks resolved, once; the names of the cache and of the prefix follow it."""
    cache: Path = field(init=False, repr=False, compare=False)
    """The cache directory: absolute."""
    address: StoreAddress = field(init=False, repr=False, compare=False)
    """The store, with the prefix of this database."""

    def __post_init__(self) -> None:
        for each in SETTINGS.values():
            try:
                each.check(getattr(self, each.name))
            except ConfigError as error:
                raise each.named(error, each.name) from error
        if self.take_over and self.restore:
            raise ConfigError(
                "both take_over and restore are set",
                setting="restore",
                hint="choose one: take_over keeps the local database, restore that of the bucket",
            )
        object.__setattr__(self, "source", _source(self.db_path))
        object.__setattr__(self, "database", resolved(self.source))
        object.__setattr__(self, "cache", self._cache())
        object.__setattr__(self, "address", self._address())

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, **given: Any
    ) -> SqliteReplicatorConfig:
        """A config from ``REPLICATOR_{SETTING}`` variables; ``given`` settings take precedence.

        Empty variables count as not set.
        """
        settings = settings_of(os.environ if environ is None else environ) | given
        if not settings.get("db_path"):
            raise ConfigError(
                "no database is named",
                setting="db_path",
                hint=f"name it, or set {SETTINGS['db_path'].variable}",
            )
        return cls(**settings)

    @property
    def retention(self) -> Retention:
        """The rules for older restore points."""
        return Retention(
            every_transaction=self.keep_every_transaction,
            hourly=self.keep_hourly,
            daily=self.keep_daily,
            weekly=self.keep_weekly,
            monthly=self.keep_monthly,
            snapshots=self.keep_snapshots,
        )

    def _cache(self) -> Path:
        if self.cache_dir is None:
            return cache_of(self.database)
        if not os.fspath(self.cache_dir):
            raise ConfigError("cache_dir: is empty", setting="cache_dir")
        return resolved(expanded(self.cache_dir))

    def _address(self) -> StoreAddress:
        if bool(self.bucket) == bool(self.url):
            given = "both a bucket and a url are" if self.bucket else "neither bucket nor url is"
            raise ConfigError(
                f"{given} set", setting="bucket", hint="set one: --bucket NAME, or --url s3://…"
            )
        if "/" in self.bucket and not self.bucket.startswith("arn:"):
            raise ConfigError(
                f"bucket: {self.bucket!r} is not the name of a bucket",
                setting="bucket",
                hint="set the prefix with --prefix, or give a whole address with --url",
            )
        address = StoreAddress.parse(
            self.url or f"s3://{self.bucket}",
            endpoint_url=self.endpoint_url,
            region=self.region,
            profile=self.profile,
            checksums=self.checksums,
        )
        keys = None if self.integrity_key is None else read_keys(self.integrity_key)
        return dataclasses.replace(address, prefix=self._prefix(address.prefix), integrity=keys)

    def _prefix(self, of_url: str) -> str:
        own = self.prefix.strip("/")
        if own and of_url and own != of_url:
            raise ConfigError(
                f"prefix: {own!r} is set, but the url has the prefix {of_url!r}", setting="prefix"
            )
        prefix = own or of_url or self.database.name
        if any(part in ("", ".", "..") for part in prefix.split("/")) or not prefix.isprintable():
            raise ConfigError(
                f"prefix: {prefix!r} cannot be part of an object key", setting="prefix"
            )
        return prefix


SETTINGS: Mapping[str, Setting] = table_of(SqliteReplicatorConfig)


def settings_of(environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings of ``REPLICATOR_{SETTING}`` variables; ``ConfigError`` names the variable."""
    return {
        each.name: _read(each, environ[each.variable])
        for each in SETTINGS.values()
        if environ.get(each.variable)
    }


def _read(each: Setting, text: str) -> Any:
    try:
        return each.read(text)
    except ConfigError as error:
        raise each.named(error, each.variable) from error


def _source(given: str | os.PathLike[str]) -> Path:
    text = os.fspath(given)
    try:
        path = database_path(text) if isinstance(given, str) else refuse_url(text)
    except ConfigError as error:
        raise ConfigError(
            f"db_path: {error}", setting="db_path", hint=error.hint, code=error.code
        ) from error
    found = expanded(path).absolute()
    if not found.name:
        raise ConfigError(f"db_path: {text} is a directory, not a database", setting="db_path")
    return found
