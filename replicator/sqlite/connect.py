"""SQLite connections that create nothing, and the classes of SQLite's error codes.

Owns the URIs. Refuses to run a statement.
"""

from __future__ import annotations

import sqlite3
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


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code, 0 if the error has none."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF
