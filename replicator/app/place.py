"""Finds the sidecar of a database: the cache directory, from a connection or a path.

Owns: the file of a connection's main database, and where its sidecar answers. Refuses: a database
that is no file.
"""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from replicator.config.database_path import database_path
from replicator.errors import ConfigError
from replicator.handle import ends
from replicator.system.cache_place import cache_of
from replicator.system.paths import expanded, resolved

Named: TypeAlias = sqlite3.Connection | str | os.PathLike[str]

KEPT = 1000  # names
# A BLOB, because a connection may have a text_factory of its own.
_MAIN = "SELECT CAST(file AS BLOB) FROM pragma_database_list WHERE name = 'main'"


@dataclass(frozen=True, slots=True)
class DatabasePlace:
    """A database file, with symbolic links resolved, and the cache directory of its sidecar."""

    database: Path
    cache: Path


def place_of(named: Named, cache_dir: str | os.PathLike[str] | None = None) -> DatabasePlace:
    """The sidecar of the main database of a connection, or of a path.

    ``cache_dir`` is that of the sidecar; by default it is that of a handle which this process
    started for the database, else the default one next to the database. ``ConfigError`` with the
    code ``not_a_database_path`` if the database is in memory or temporary.
    """
    default = _default(_file_of(named))
    if cache_dir is not None:
        return DatabasePlace(default.database, resolved(expanded(cache_dir)))
    handle = handle_of(default.database)
    if handle is None or handle.config.cache == default.cache:
        return default
    return DatabasePlace(default.database, handle.config.cache)


def handle_of(database: Path) -> ends.Started | None:
    """The handle that this process, or the one that forked it, started for a resolved path."""
    for handle in ends.started():
        config = handle.config
        if database == config.database or database == resolved(config.source):
            return handle
    return None


# By name, with the file that it led to: to resolve a path again takes 45 µs of each commit.
_defaults: dict[str, tuple[tuple[int, int], DatabasePlace]] = {}


def _default(name: str) -> DatabasePlace:
    """The file behind a name, and its default cache directory."""
    try:
        facts = os.stat(name)
    except OSError:
        return _resolve(name)
    identity = facts.st_dev, facts.st_ino
    known = _defaults.get(name)
    if known is None or known[0] != identity:
        if len(_defaults) >= KEPT:
            _defaults.clear()
        known = _defaults[name] = identity, _resolve(name)
    return known[1]


def _resolve(name: str) -> DatabasePlace:
    database = resolved(name)
    return DatabasePlace(database, cache_of(database))


def _file_of(named: Named) -> str:
    if not isinstance(named, sqlite3.Connection):
        return os.fspath(expanded(database_path(os.fspath(named))))
    cursor = named.cursor()
    cursor.row_factory = None
    ((name,),) = cursor.execute(_MAIN).fetchall()
    if not name:
        raise ConfigError(
            "the main database of the connection is in memory or temporary",
            setting="connection",
            code="not_a_database_path",
            hint="connect to a file: only a file can be replicated",
        )
    return os.fsdecode(name)
