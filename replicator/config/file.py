"""The TOML file of several databases: which databases, and the settings of each.

    bucket = "backups"                # any setting, as a default for every database
    prefix = "shop"                   # the common parent: each database gets a prefix below it

    [[database]]
    path = "orders.db"                # relative to the file

    [[database]]
    path = "tenants/*.db"             # includes databases that appear later
    sync_interval = "10s"

Owns the keys of the file, the precedence of settings, and errors that name file, entry and key.
Refuses to contact a store, and to look at a database beyond its name.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replicator.config.database_path import database_path
from replicator.config.patterns import Pattern
from replicator.config.settings import SETTINGS, SqliteReplicatorConfig, settings_of
from replicator.config.table import Setting, Where
from replicator.config.units import PATH
from replicator.errors import ConfigError

Settings = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One ``[[database]]``: its path or pattern, made absolute, and its settings."""

    name: str  # for messages: the file, the number of the entry, its path
    path: str
    settings: Settings
    pattern: Pattern | None  # None: the entry names one file

    @property
    def is_pattern(self) -> bool:
        return self.pattern is not None

    def databases(self) -> Iterator[tuple[str, str]]:
        """The path of each database, with its name below a common prefix.

        The name is the file name, or for a pattern the path below the fixed part of the pattern.
        """
        if self.pattern is None:
            yield self.path, os.path.basename(self.path)
            return
        for path in self.pattern.files():
            yield path, os.path.relpath(path, self.pattern.fixed)


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A file that was read and checked; see :meth:`load`."""

    path: Path
    defaults: Settings
    entries: tuple[Entry, ...]
    overrides: Settings  # from the command line and the environment

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], environ: Mapping[str, str] | None = None, **given: Any
    ) -> ConfigFile:
        """Read the file; ``ConfigError`` names file, entry and key.

        Precedence: ``given`` (the command line), ``REPLICATOR_…`` variables, the settings of an
        entry, the defaults of the file.
        """
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
        overrides = settings_of(os.environ if environ is None else environ) | given
        _refuse_unshared("with --config", overrides)
        return cls(
            source,
            _settings(content, str(source), source.parent, shared=True),
            tuple(_entry(source, number, table) for number, table in enumerate(tables, 1)),
            overrides,
        )

    @property
    def has_patterns(self) -> bool:
        """True if databases may appear that do not exist yet."""
        return any(entry.is_pattern for entry in self.entries)

    def configs(self) -> list[SqliteReplicatorConfig]:
        """The config of each database that exists or has its own entry.

        ``ConfigError`` if two of them with an entry of their own would share a location in a
        bucket, or a cache. Of those that a pattern matches, the ones that cannot be replicated are
        left out, see :class:`Search`.
        """
        return Search(self).look()[0]

    def config(self, entry: Entry, path: Path, name: str) -> SqliteReplicatorConfig:
        """The config of one database of ``entry``.

        An entry for a single path sets its full location; a shared setting sets the common parent
        prefix, and the database is stored below it as ``name``.
        """
        settings = merged(merged(self.defaults, entry.settings), self.overrides)
        exact = not entry.is_pattern and _sets_prefix(entry.settings)
        if not exact or _sets_prefix(self.overrides):
            settings = _below(settings, name)
        try:
            return SqliteReplicatorConfig(db_path=path, **settings)
        except ConfigError as error:
            raise ConfigError(
                f"{entry.name}: {error}", setting=error.setting, hint=error.hint, code=error.code
            ) from error


class Search:
    """Finds each database of a file once; the next :meth:`look` finds those that appeared since."""

    def __init__(self, file: ConfigFile) -> None:
        self.file = file
        self._seen: set[str] = set()  # paths as the search found them: a second look is cheap
        self._databases: set[Path] = set()
        self._taken: dict[object, Path] = {}
        self._refused: dict[str, ConfigError] = {}  # by path
        self._unmatched: list[tuple[str, ConfigError]] = []

    @property
    def problems(self) -> list[tuple[str, ConfigError]]:
        """The files of patterns that cannot be replicated, and the patterns without any file, as
        of the last look; each with the reason. Bytes that are not UTF-8 are escaped."""
        return [
            (path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"), error)
            for path, error in (*self._refused.items(), *self._unmatched)
        ]

    @property
    def caches(self) -> list[str]:
        """The cache directories of patterns, also of files that vanished."""
        patterns = [entry.pattern for entry in self.file.entries]
        return [cache for each in patterns if each is not None for cache in each.caches()]

    def look(self) -> tuple[list[SqliteReplicatorConfig], list[ConfigError]]:
        """The new databases, and an error for each new file of a pattern that cannot be replicated.

        Entries for a single path come before patterns, and an earlier pattern before a later one.
        ``ConfigError`` if an entry for a single path cannot be replicated.
        """
        self._forget_removed()
        configs: list[SqliteReplicatorConfig] = []
        errors: list[ConfigError] = []
        self._unmatched = []
        for entry in sorted(self.file.entries, key=lambda entry: entry.is_pattern):
            found = list(entry.databases())
            if entry.pattern is not None and not found:
                self._unmatched.append((entry.path, entry.pattern.unmatched(entry.name)))
            for path, name in found:
                if path in self._seen:
                    continue
                self._seen.add(path)
                try:
                    configs += self._new(entry, path, name)
                except ConfigError as error:
                    if not entry.is_pattern:
                        raise
                    self._refused[path] = error
                    errors.append(error)
        return configs, errors

    def _forget_removed(self) -> None:
        for path in [path for path in self._refused if not os.path.lexists(path)]:
            del self._refused[path]
            self._seen.discard(path)

    def _new(self, entry: Entry, path: str, name: str) -> list[SqliteReplicatorConfig]:
        """The config of a database; none if a pattern matches it under a second name."""
        config = self.file.config(entry, Path(path), name)
        if entry.is_pattern and config.database in self._databases:
            return []
        clash = self._take(entry, config)
        if clash is not None:
            raise clash
        return [config]

    def _take(self, entry: Entry, config: SqliteReplicatorConfig) -> ConfigError | None:
        """Reserve the location and the cache for this database; an error if one is taken."""
        to = config.address
        location = (to.scheme, to.endpoint_url, to.bucket, to.path, to.prefix)
        wanted = (config.database, ("cache", config.cache), location)
        for each in wanted:
            if each in self._taken:
                return _clash(entry, config, self._taken[each])
        self._taken.update(dict.fromkeys(wanted, config.database))
        self._databases.add(config.database)
        return None


def merged(low: Settings, high: Settings) -> Settings:
    """Both settings; ``high`` takes precedence.

    A location is one value in several spellings: a ``bucket`` or a ``url`` in ``high`` replaces
    both in ``low``, and a prefix in either spelling replaces the prefix in either spelling.
    """
    if high.get("bucket") or high.get("url"):
        low = {key: value for key, value in low.items() if key not in ("bucket", "url")}
    if _path_of(high.get("url", "")):
        low = {key: value for key, value in low.items() if key != "prefix"}
    elif high.get("prefix") and (path := _path_of(low.get("url", ""))):
        low = low | {"url": low["url"].rstrip("/").removesuffix(f"/{path}")}
    return low | high


def _sets_prefix(settings: Settings) -> bool:
    return bool(settings.get("prefix") or _path_of(settings.get("url", "")))


def _below(settings: Settings, name: str) -> Settings:
    """The settings with ``name`` appended to the prefix."""
    if _path_of(settings.get("url", "")):
        return settings | {"url": f"{settings['url'].rstrip('/')}/{name}"}
    prefix = settings.get("prefix", "").strip("/")
    return settings | {"prefix": f"{prefix}/{name}".lstrip("/")}


def _path_of(url: str) -> str:
    """The prefix in an ``s3://`` address; a ``file://`` address has none."""
    return url.removeprefix("s3://").partition("/")[2].strip("/") if url.startswith("s3://") else ""


def _read(source: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(source.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read {source}: {(error.strerror or '').lower()}", code="file_unreadable"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{source}: is not TOML: {str(error).lower()}", code="not_toml"
        ) from error


def _entry(source: Path, number: int, table: dict[str, Any]) -> Entry:
    path = table.pop("path", None)
    name = f"{source}: database {number}" + (f" ({path})" if isinstance(path, str) else "")
    if not isinstance(path, str) or not path:
        raise ConfigError(
            f"{name}: path: is missing, or not text",
            setting="path",
            hint='name the file, or a pattern: path = "/data/*.db"',
        )
    try:
        path = database_path(path)
    except ConfigError as error:
        raise ConfigError(
            f"{name}: {error}", setting="path", hint=error.hint, code=error.code
        ) from error
    absolute = os.path.join(source.parent.absolute(), os.path.expanduser(path))
    pattern = Pattern.of(absolute)
    settings = _settings(table, name, source.parent, shared=pattern is not None)
    return Entry(name, absolute, settings, pattern)


def _settings(table: dict[str, Any], origin: str, directory: Path, *, shared: bool) -> Settings:
    """The values of a TOML table; paths in it are relative to the file, in ``directory``."""
    settings = {key: _value(_known(key, origin), table[key], origin) for key in table}
    if shared:
        _refuse_unshared(origin, settings)
    paths = {
        key: os.path.join(directory.absolute(), os.path.expanduser(value))
        for key, value in settings.items()
        if SETTINGS[key].unit is PATH
    }
    return settings | paths


def _known(key: str, origin: str) -> Setting:
    known = {name: each for name, each in SETTINGS.items() if each.where & Where.FILE}
    if key in known:
        return known[key]
    near = difflib.get_close_matches(key, known, 1)
    raise ConfigError(
        f"{origin}: {key}: unknown setting",
        setting=key,
        hint=f"did you mean {near[0]}?" if near else "",
        code="unknown_setting",
    )


def _value(setting: Setting, value: Any, origin: str) -> Any:
    """Text is read as an environment variable is; other values keep their type."""
    try:
        if isinstance(value, str):
            return setting.read(value)
        setting.check(value)
    except ConfigError as error:
        raise setting.named(error, f"{origin}: {setting.name}") from error
    return value


def _refuse_unshared(origin: str, settings: Settings) -> None:
    for key in sorted(settings):
        if Where.DEFAULTS not in SETTINGS[key].where:
            raise ConfigError(
                f"{origin}: {key}: cannot be shared by several databases",
                setting=key,
                hint="set it in the [[database]] of a single path",
                code="not_shareable",
            )


def _clash(entry: Entry, config: SqliteReplicatorConfig, other: Path) -> ConfigError:
    if other == config.database:
        return ConfigError(f"{entry.name}: {other} is named twice", code="database_repeated")
    return ConfigError(
        f"{entry.name}: {config.database} and {other} would share {config.address.url} or a cache",
        hint="give each database its own prefix",
        code="location_shared",
    )
