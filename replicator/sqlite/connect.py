"""SQLite connections that create nothing, and the classes of SQLite's error codes.

Owns the URIs. Refuses to run a statement, except for the flag of :func:`read_past_schema`.
"""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path
from urllib.parse import quote

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


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code, 0 if the error has none."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF
