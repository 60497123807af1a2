"""Several databases in one file (TOML): which they are, and the settings of each.

    bucket = "backups"                # any setting, as a default for every database
    prefix = "shop"                   # common: each database has its own place below it

    [[database]]
    path = "orders.db"                # relative to the file

    [[database]]
    path = "tenants/*.db"             # databases that appear later are followed too
    sync_interval = "10s"

Owns: the keys of that file, what goes before what, and the errors that name file, entry and key.
Refuses: to ask a store, and to look at a database beyond its name.
"""

from __future__ import annotations

import dataclasses
import difflib
import glob
import os
import tomllib
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replicator.config.settings import PARSERS, SWITCHED, SqliteReplicatorConfig, settings_of
from replicator.errors import ConfigError
from replicator.system.paths import SIDE_SUFFIXES

KNOWN = frozenset(
    field.name for field in dataclasses.fields(SqliteReplicatorConfig) if field.init
) - {"db_path"}
OWN = frozenset({"cache_dir"})  # what no two databases can share
LOCAL_PATHS = ("cache_dir", "drill_scratch")  # relative to the file, as the databases are
WILD = "*?["

Settings = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One ``[[database]]``: the path as it was written, made absolute, and its settings."""

    name: str  # for people: the file and which entry of it
    path: str
    settings: Settings

    @property
    def is_pattern(self) -> bool:
        return any(sign in self.path for sign in WILD)

    def databases(self, known: Container[str] = ()) -> Iterator[tuple[str, str]]:
        """Each path that is not ``known``, and what stands for it below a common prefix: its
        path below the part of the pattern that is fixed; of a single path the file name."""
        if not self.is_pattern:
            if self.path not in known:
                yield self.path, os.path.basename(self.path)
            return
        fixed = _fixed_part(self.path)
        for found in sorted(glob.glob(self.path, recursive=True)):
            if found not in known and not found.endswith(SIDE_SUFFIXES) and os.path.isfile(found):
                yield found, os.path.relpath(found, fixed)


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A file that was read and understood; see :meth:`load`."""

    path: Path
    defaults: Settings
    entries: tuple[Entry, ...]
    overrides: Settings  # of the command line and the environment: they go before the file

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], environ: Mapping[str, str] | None = None, **given: Any
    ) -> ConfigFile:
        """Read the file. ``given`` (the command line) goes before ``REPLICATOR_…`` variables,
        they before the settings of an entry, those before the file's defaults. ``ConfigError``
        names file, entry and key."""
        source = Path(path)
        content = _read(source)
        tables = content.pop("database", [])
        if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
            raise ConfigError(
                f"{source}: database: is not a list of tables",
                hint="begin each database with a line [[database]]",
            )
        if not tables:
            raise ConfigError(
                f"{source}: names no database", hint="add a table [[database]] with a path"
            )
        defaults = _settings(content, source, source.parent)
        overrides = settings_of(os.environ if environ is None else environ) | given
        for origin, settings in ((str(source), defaults), ("with --config", overrides)):
            _refuse_own(origin, settings)
        return cls(
            source,
            defaults,
            tuple(_entry(source, number, table) for number, table in enumerate(tables, 1)),
            overrides,
        )

    @property
    def has_patterns(self) -> bool:
        """Whether databases may appear that are not there yet."""
        return any(entry.is_pattern for entry in self.entries)

    def configs(self) -> list[SqliteReplicatorConfig]:
        """One for each database that there is now, or that is named; ``ConfigError`` when two
        of them would share a place in a bucket or a cache."""
        configs, clashes = Search(self).look()
        for clash in clashes:
            raise clash
        return configs

    def config(self, entry: Entry, path: Path, below: str) -> SqliteReplicatorConfig:
        """What is said of this database alone names its place; what is said of several names
        what their places lie below."""
        settings = over(over(self.defaults, entry.settings), self.overrides)
        exact = not entry.is_pattern and _places_it(entry.settings)
        if not exact or _places_it(self.overrides):
            settings = _below(settings, below)
        try:
            return SqliteReplicatorConfig(db_path=path, **settings)
        except ConfigError as error:
            raise ConfigError(f"{entry.name}: {error}", hint=error.hint) from error


class Search:
    """Finds the databases of a file, each once; :meth:`look` again finds what appeared since."""

    def __init__(self, file: ConfigFile) -> None:
        self._file = file
        self._seen: set[str] = set()  # paths as they were found: the second look is cheap
        self._databases: set[Path] = set()
        self._taken: dict[object, Path] = {}

    def look(self) -> tuple[list[SqliteReplicatorConfig], list[ConfigError]]:
        """The databases that are new, and an error for each that would share a place or a cache
        with another. A path that is named goes before a pattern, and an earlier pattern before
        a later one."""
        found: list[SqliteReplicatorConfig] = []
        clashes: list[ConfigError] = []
        for entry in sorted(self._file.entries, key=lambda entry: entry.is_pattern):
            for path, below in entry.databases(self._seen):
                self._seen.add(path)
                config = self._file.config(entry, Path(path), below)
                if entry.is_pattern and config.database in self._databases:
                    continue
                clash = self._take(entry, config)
                if clash is None:
                    found.append(config)
                else:
                    clashes.append(clash)
        return found, clashes

    def _take(self, entry: Entry, config: SqliteReplicatorConfig) -> ConfigError | None:
        """Give the database its place and its cache, unless somebody has them."""
        address = config.address
        place = (address.scheme, address.endpoint_url, address.bucket, address.path, address.prefix)
        wanted = (config.database, ("cache", config.cache), place)
        for each in wanted:
            if each in self._taken:
                return _clash(entry, config, self._taken[each])
        self._taken.update(dict.fromkeys(wanted, config.database))
        self._databases.add(config.database)
        return None


def over(low: Settings, high: Settings) -> Settings:
    """``high`` goes before ``low``. A place is one thing, however it is written: who names a
    bucket or a url says that the other does not count, and the same with two prefixes."""
    if high.get("bucket") or high.get("url"):
        low = {key: value for key, value in low.items() if key not in ("bucket", "url")}
    if _path_of(high.get("url", "")):
        low = {key: value for key, value in low.items() if key != "prefix"}
    elif high.get("prefix") and (path := _path_of(low.get("url", ""))):
        low = low | {"url": low["url"].rstrip("/").removesuffix(f"/{path}")}
    return low | high


def _places_it(settings: Settings) -> bool:
    return bool(settings.get("prefix") or _path_of(settings.get("url", "")))


def _below(settings: Settings, name: str) -> Settings:
    """A place for one database, below what several have in common."""
    if _path_of(settings.get("url", "")):
        return settings | {"url": f"{settings['url'].rstrip('/')}/{name}"}
    prefix = settings.get("prefix", "").strip("/")
    return settings | {"prefix": f"{prefix}/{name}".lstrip("/")}


def _path_of(url: str) -> str:
    """The prefix that an ``s3://`` address has; a directory is all address."""
    return url.removeprefix("s3://").partition("/")[2].strip("/") if url.startswith("s3://") else ""


def _fixed_part(pattern: str) -> str:
    """The directory above the first wildcard."""
    fixed = Path(pattern)
    while any(sign in str(fixed) for sign in WILD):
        fixed = fixed.parent
    return str(fixed)


def _read(source: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(source.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {source}: {(error.strerror or '').lower()}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: is not TOML: {str(error).lower()}") from error


def _entry(source: Path, number: int, table: dict[str, Any]) -> Entry:
    path = table.pop("path", None)
    name = f"{source}: database {number}" + (f" ({path})" if isinstance(path, str) else "")
    if not isinstance(path, str) or not path:
        raise ConfigError(
            f"{name}: path: is missing, or no text",
            hint='name the file, or a pattern: path = "/data/*.db"',
        )
    entry = Entry(
        name,
        os.path.join(source.parent.absolute(), os.path.expanduser(path)),
        _settings(table, name, source.parent),
    )
    if entry.is_pattern:
        _refuse_own(name, entry.settings)
    return entry


def _settings(table: dict[str, Any], origin: object, beside: Path) -> Settings:
    settings = {}
    for key, value in table.items():
        if key not in KNOWN:
            near = difflib.get_close_matches(key, KNOWN, 1)
            raise ConfigError(
                f"{origin}: {key}: there is no such setting",
                hint=f"did you mean {near[0]}?" if near else "",
            )
        try:
            settings[key] = _value(key, value)
        except (ConfigError, ValueError) as error:
            raise ConfigError(f"{origin}: {key}: {error}") from error
        if key in LOCAL_PATHS:
            settings[key] = os.path.join(beside.absolute(), os.path.expanduser(settings[key]))
    return settings


def _value(key: str, value: Any) -> Any:
    """Text is read as an environment variable is; numbers and switches are themselves."""
    if isinstance(value, str):
        return PARSERS.get(key, str)(value)
    wanted: type | tuple[type, ...] = bool if key in SWITCHED else (int, float)
    if (
        key not in PARSERS
        or not isinstance(value, wanted)
        or (isinstance(value, bool) and key not in SWITCHED)
    ):
        what = "true or false" if key in SWITCHED else "a number" if key in PARSERS else "text"
        raise ConfigError(f"{value!r} is not {what}")
    return value


def _refuse_own(origin: str, settings: Settings) -> None:
    for key in sorted(OWN & settings.keys()):
        raise ConfigError(
            f"{origin}: {key}: cannot be shared by several databases",
            hint="set it in the [[database]] of a single path",
        )


def _clash(entry: Entry, config: SqliteReplicatorConfig, other: Path) -> ConfigError:
    if other == config.database:
        return ConfigError(f"{entry.name}: {other} is named twice")
    return ConfigError(
        f"{entry.name}: {config.database} and {other} would both be kept in "
        f"{config.address.url}, or in one cache",
        hint="give each a prefix of its own",
    )
