"""SQLite connections that create nothing, and the errors of SQLite as our own.

Owns the URIs, and the hook that registers functions, collations and extensions at a connection.
Refuses to run a statement, except for the flag of :func:`read_past_schema`.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote

from replicator.errors import Cancelled, ConfigError, DamageError, ReplicatorError

# Registers at a connection what the schema of the application needs, e.g. a collation.
Prepare: TypeAlias = Callable[[sqlite3.Connection], None]

UNREADABLE = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})
LOCKED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})


def database_uri(path: Path, options: str) -> str:
    """``options`` are SQLite's, e.g. ``mode=rw``."""
    return f"file:{quote(str(path))}?{options}"


def immutable_uri(path: Path) -> str:
    """For a file that no process writes: SQLite creates no ``-wal`` or ``-shm`` for it."""
    return database_uri(path, "mode=ro&immutable=1")


def connect(uri: str, *, timeout: float = 0.0) -> sqlite3.Connection:
    """A connection without implicit transactions. ``timeout`` in seconds is for locks."""
    return sqlite3.connect(uri, uri=True, timeout=timeout, isolation_level=None)


def read_past_schema(connection: sqlite3.Connection) -> None:
    """Let SQLite skip the entries of the schema that it cannot parse.

    A newer SQLite may have written them. Otherwise every statement that reads the schema fails,
    even a checkpoint. The flag belongs to this connection, and writes nothing. Source: SQLite
    documentation, "PRAGMA writable_schema".
    """
    if sys.version_info >= (3, 12):  # a library that is defensive by default ignores the flag
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, False)
    connection.execute("PRAGMA writable_schema=ON")


def unprepared(connection: sqlite3.Connection) -> None:
    """The :data:`Prepare` of a schema that needs nothing."""


@dataclass(frozen=True, slots=True)
class Extensions:
    """A :data:`Prepare` that loads these extensions. It raises ``ConfigError`` if one cannot be
    loaded. The code of an extension runs in the process that checks, with its rights."""

    paths: tuple[Path, ...]

    def __call__(self, connection: sqlite3.Connection) -> None:
        try:
            connection.enable_load_extension(True)
            for path in self.paths:
                connection.load_extension(str(path.absolute() if path.exists() else path))
            connection.enable_load_extension(False)
        except (AttributeError, sqlite3.Error) as error:
            raise ConfigError(
                f"cannot load the extension: {error}",
                setting="load_extension",
                hint="name a loadable SQLite extension of this machine",
            ) from error


def extensions(paths: Sequence[Path]) -> Prepare:
    """The :data:`Prepare` that loads these extensions, if there are any. ``ConfigError`` at once,
    and not after a download, if the ``sqlite3`` module of this Python loads none."""
    if not paths:
        return unprepared
    if not hasattr(sqlite3.Connection, "enable_load_extension"):
        raise ConfigError(
            "the sqlite3 module of this Python was built without loadable extensions",
            setting="load_extension",
            hint="use a Python whose sqlite3 loads them, as most distributions have, or register "
            "functions and collations with prepare= in Python",
        )
    return Extensions(tuple(paths))


def quoted(name: str) -> str:
    """A name as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code, 0 if the error has none."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


@contextlib.contextmanager
def errors_of(work: str) -> Iterator[None]:
    """Translates SQLite's errors in the block; ``work`` is its name in the message. ``Cancelled``
    if a progress handler ended it, ``DamageError`` if SQLite cannot read the file."""
    try:
        yield
    except sqlite3.Error as error:
        code = primary_code(error)
        if code == sqlite3.SQLITE_INTERRUPT:
            raise Cancelled(f"{work} was cancelled") from error
        if code in UNREADABLE:
            raise DamageError(f"{work} failed: {error}", code="malformed_database") from error
        raise ReplicatorError(f"{work} failed: {error}") from error
