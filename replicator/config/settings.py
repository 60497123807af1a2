"""Everything a user can set, checked once.

Owns: names, defaults, bounds, and the environment. Refuses: to read files or
to contact anything; a config that exists is a config that can work, as far as its values tell.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from replicator.errors import ConfigError
from replicator.model import Retention
from replicator.store.address import Checksums, StoreAddress
from replicator.system.paths import cache_directory

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

SIZE_UNITS = {"": 1, "b": 1, "k": KIB, "kib": KIB, "kb": 1000, "m": MIB, "mib": MIB,
              "mb": 1000**2, "g": GIB, "gib": GIB, "gb": 1000**3, "t": GIB << 10,
              "tib": GIB << 10, "tb": 1000**4}  # fmt: skip
TIME_UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
SWITCHES = {"1": True, "true": True, "yes": True, "on": True,
            "0": False, "false": False, "no": False, "off": False}  # fmt: skip

ENVIRONMENT_PREFIX = "REPLICATOR_"


def parse_size(text: str) -> int:
    """Bytes, from "1GiB", "64 MB", "1024". A unit of one letter is a power of 1024."""
    return round(_quantity(text, SIZE_UNITS, "a size, for example 512MiB"))


def parse_duration(text: str) -> float:
    """Seconds, from "1h", "1h30m", "500ms", "2.5". A number without a unit stands alone."""
    parts = re.findall(r"[0-9.]+\s*[a-z]+", text.lower()) or [text]
    if "".join("".join(parts).split()) != "".join(text.lower().split()):
        raise ConfigError(f"{text!r} is not a duration, for example 30s or 1h30m")
    return sum(_quantity(part, TIME_UNITS, "a duration, for example 30s") for part in parts)


def parse_span(text: str) -> float:
    """A duration, or "off" (0) or "forever" (infinite)."""
    known = {"off": 0.0, "forever": math.inf}
    return known[text.strip().lower()] if text.strip().lower() in known else parse_duration(text)


def parse_switch(text: str) -> bool:
    try:
        return SWITCHES[text.strip().lower()]
    except KeyError:
        raise ConfigError(f"{text!r} is neither true nor false") from None


def _quantity(text: str, units: Mapping[str, float], what: str) -> float:
    match = re.fullmatch(r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*([a-z]*)\s*", text.lower())
    if match is None or match[2] not in units:
        raise ConfigError(f"{text!r} is not {what}")
    return float(match[1]) * units[match[2]]


SIZES, DURATIONS, SWITCHED = (
    ("max_cache_bytes", "segment_max_bytes", "drill_bandwidth"),
    (
        "sync_interval",
        "poll_interval",
        "busy_timeout",
        "snapshot_interval",
        "snapshot_max_age",
        "drill_interval",
    ),
    ("auto_restore", "take_over", "allow_unsafe_store", "keep"),
)
SPANS = ("keep_every_transaction", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly")
# How the text of an environment variable becomes a value; any other setting is text itself.
PARSERS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(SIZES, parse_size),
    **dict.fromkeys(DURATIONS, parse_duration),
    **dict.fromkeys(SWITCHED, parse_switch),
    **dict.fromkeys(SPANS, parse_span),
    "keep_snapshots": int,
    "snapshot_log_ratio": float,
    "compression_level": int,
}
# Least and most, both inclusive.
BOUNDS = {
    "max_cache_bytes": (MIB, math.inf),
    "segment_max_bytes": (128 * KIB, GIB),
    "sync_interval": (0, math.inf),
    "poll_interval": (0.01, 3600),
    "busy_timeout": (0, 3600),
    "snapshot_interval": (0, math.inf),
    "snapshot_max_age": (1, math.inf),
    "snapshot_log_ratio": (0, math.inf),
    "compression_level": (1, 22),
    "drill_interval": (0, math.inf),
    "drill_bandwidth": (0, math.inf),
    **dict.fromkeys(SPANS, (0, math.inf)),
    "keep_snapshots": (1, math.inf),
}
WHOLE = (*SIZES, "compression_level", "keep_snapshots")


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteReplicatorConfig:
    """Settings of one replicator. Sizes are bytes, times seconds; ``ConfigError`` otherwise.

    Where to: ``bucket`` and ``prefix`` (default: the database's file name), or ``url``, that
    is ``s3://bucket/prefix`` or ``file:///directory``.
    """

    db_path: str | os.PathLike[str]
    bucket: str = ""
    prefix: str = ""
    url: str = ""
    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    checksums: Checksums = "when_required"
    cache_dir: str | os.PathLike[str] | None = None
    max_cache_bytes: int = GIB
    auto_restore: bool = False
    take_over: bool = False
    allow_unsafe_store: bool = False
    sync_interval: float = 1.0
    poll_interval: float = 1.0
    busy_timeout: float = 5.0
    snapshot_interval: float = 3600.0
    snapshot_log_ratio: float = 0.5
    snapshot_max_age: float = 86400.0
    segment_max_bytes: int = 32 * MIB
    compression_level: int = 3
    drill_interval: float = 0.0
    drill_bandwidth: int = 10 * MIB
    drill_scratch: str | os.PathLike[str] | None = None
    keep: bool = True
    keep_every_transaction: float = 7 * 86400.0
    keep_hourly: float = 30 * 86400.0
    keep_daily: float = 90 * 86400.0
    keep_weekly: float = 0.0
    keep_monthly: float = 0.0
    keep_snapshots: int = 2

    database: Path = dataclasses.field(init=False, repr=False, compare=False)
    """The database file: absolute, symlinks resolved once (SQLite names its WAL after that)."""
    cache: Path = dataclasses.field(init=False, repr=False, compare=False)
    """The cache directory: absolute."""
    address: StoreAddress = dataclasses.field(init=False, repr=False, compare=False)
    """Where backups go, with the prefix that is in force."""

    def __post_init__(self) -> None:
        for name in BOUNDS:
            _check_number(name, getattr(self, name))
        if self.checksums not in get_args(Checksums):
            known = " or ".join(get_args(Checksums))
            raise ConfigError(f"checksums: {self.checksums!r} is unknown; it is {known}")
        object.__setattr__(self, "database", _database(os.fspath(self.db_path)))
        object.__setattr__(self, "cache", self._cache())
        object.__setattr__(self, "address", self._address())

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, **given: Any
    ) -> SqliteReplicatorConfig:
        """A config from ``REPLICATOR_{SETTING}`` variables; what is ``given`` goes first.

        Variables that are empty count as not set.
        """
        settings = settings_of(os.environ if environ is None else environ) | given
        if not settings.get("db_path"):
            raise ConfigError(
                "no database is named", hint=f"name it, or set {variable_of('db_path')}"
            )
        return cls(**settings)

    @property
    def retention(self) -> Retention:
        """What stays of the past."""
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
            return cache_directory(self.database)
        if not os.fspath(self.cache_dir):
            raise ConfigError("cache_dir: is empty")
        return Path(self.cache_dir).expanduser().resolve()

    def _address(self) -> StoreAddress:
        if bool(self.bucket) == bool(self.url):
            given = "both a bucket and a url are" if self.bucket else "neither bucket nor url is"
            raise ConfigError(f"{given} set", hint="set one: --bucket NAME, or --url s3://…")
        if "/" in self.bucket and not self.bucket.startswith("arn:"):
            raise ConfigError(
                f"bucket: {self.bucket!r} is not a bucket's name",
                hint="a prefix has its own setting; for a whole address use --url",
            )
        address = StoreAddress.parse(
            self.url or f"s3://{self.bucket}", endpoint_url=self.endpoint_url,
            region=self.region, profile=self.profile, checksums=self.checksums,
        )  # fmt: skip
        return dataclasses.replace(address, prefix=self._prefix(address.prefix))

    def _prefix(self, of_url: str) -> str:
        own = self.prefix.strip("/")
        if own and of_url and own != of_url:
            raise ConfigError(f"prefix: {own!r} is set, but the url says {of_url!r}")
        prefix = own or of_url or self.database.name
        if any(part in ("", ".", "..") for part in prefix.split("/")) or not prefix.isprintable():
            raise ConfigError(f"prefix: {prefix!r} cannot be part of an object's key")
        return prefix


def settings_of(environ: Mapping[str, str]) -> dict[str, Any]:
    """What ``REPLICATOR_{SETTING}`` variables say; ``ConfigError`` names the variable."""
    return {
        field.name: _from_text(field.name, environ[variable])
        for field in dataclasses.fields(SqliteReplicatorConfig)
        if field.init and environ.get(variable := variable_of(field.name))
    }


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return ENVIRONMENT_PREFIX + name.upper()


def _from_text(name: str, text: str) -> Any:
    try:
        return PARSERS.get(name, str)(text)
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{variable_of(name)}: {error}") from error


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int if name in WHOLE else (int, float)):
        raise ConfigError(f"{name}: {value!r} is not a {'whole ' * (name in WHOLE)}number")
    least, most = BOUNDS[name]
    if not least <= value <= most:
        bound = f"at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
        raise ConfigError(f"{name}: {value!r} is out of bounds; it must be {bound}")


def _database(text: str) -> Path:
    if not text or text == ":memory:" or text.startswith("file:") or "\0" in text:
        raise ConfigError(f"db_path: {text!r} is not the path of a database file")
    return Path(text).expanduser().resolve()
