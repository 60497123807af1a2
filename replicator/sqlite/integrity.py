"""SQLite's own checks of a finished file, with three outcomes: good, damaged, inconclusive.

The schema may need a newer SQLite, or a collation, function or module of the application. Then
this library cannot make the check, which says nothing about the file. Owns that distinction, and
checks each table that it can. Refuses to write the file; no process may do so.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from replicator.errors import DamageError
from replicator.sqlite.connect import (
    Prepare,
    connect,
    errors_of,
    immutable_uri,
    primary_code,
    quoted,
    read_past_schema,
    unprepared,
)

STEPS = 100_000  # of SQLite's virtual machine, some milliseconds, between two calls of cancelled
# Codes of a statement that this library cannot run; a file of which it can is still good.
_UNABLE = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_TOOBIG})
# Messages about a part that another SQLite, or the application, has. There are no codes for them.
_LACKING = (
    "syntax error",
    "unrecognized token",
    "incomplete input",
    "no such collation",
    "no such function",
    "unknown function",
    "no such module",
    "no such tokenizer",
    "wrong number of arguments to function",
    "malformed database schema",
)


def check_database(
    path: Path,
    *,
    full: bool,
    cancelled: Callable[[], bool] = lambda: False,
    prepare: Prepare = unprepared,
) -> tuple[str, ...]:
    """Run ``quick_check`` or ``integrity_check``. ``DamageError`` quotes the first finding.

    Returns the reasons why the check is inconclusive, none if all was checked. ``prepare``
    receives the connection first, to register what the schema needs. Raises ``Cancelled`` soon
    after ``cancelled`` returns True.
    """
    pragma = "integrity_check" if full else "quick_check"
    with errors_of(pragma), contextlib.closing(connect(immutable_uri(path))) as connection:
        prepare(connection)
        connection.set_progress_handler(cancelled, STEPS)
        reason = unreadable_schema(connection) or _refusal(connection, f"PRAGMA {pragma}(1)")
        return tuple(dict.fromkeys([reason, *_by_table(connection, pragma)])) if reason else ()


def unreadable_schema(connection: sqlite3.Connection) -> str:
    """Why this library cannot parse an entry of the schema; "" if it parses all. Afterwards the
    connection reads past such entries. Raises ``sqlite3.Error`` if the schema cannot be read."""
    try:
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
    except sqlite3.DatabaseError as error:
        if primary_code(error) != sqlite3.SQLITE_CORRUPT:
            raise
        read_past_schema(connection)
        connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
        return f"{_library()} cannot read the schema: {error}"
    return ""


def lacking(error: sqlite3.Error | sqlite3.Warning) -> bool:
    """True if this library lacks something that another SQLite, or the application, has."""
    return any(text in str(error) for text in _LACKING)


def _library() -> str:
    return f"SQLite {sqlite3.sqlite_version}"


def _refusal(connection: sqlite3.Connection, statement: str) -> str:
    """Run a check; the reason why this library cannot, or "". ``DamageError``."""
    try:
        (answer,) = connection.execute(statement).fetchone()
    except sqlite3.Error as error:
        if primary_code(error) not in _UNABLE:
            raise
        return f"{_library()} cannot check everything: {error}"
    if answer != "ok":
        finding = str(answer).splitlines()[-1]
        name = statement.split()[1].partition("(")[0]
        raise DamageError(f"{name} found: {finding}", code="malformed_database")
    return ""


def _by_table(connection: sqlite3.Connection, pragma: str) -> Iterator[str]:
    """Check each table alone; the reasons of those that this library cannot check."""
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    for (name,) in rows.fetchall():
        reason = _refusal(connection, f"PRAGMA {pragma}({quoted(name)})")
        if reason:
            yield f"table {name}: {reason}"
