"""Large amounts of rows in pieces.

A read that lasts keeps the WAL from a reset, for SQLite and for a replicator. :func:`scan` reads a
table of any size in short reads.

Owns the sizes of the pieces. Refuses to put a value into the text of a statement.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from replicator.app.quoting import identifier, placeholders
from replicator.app.statements import Row
from replicator.errors import ConfigError

if TYPE_CHECKING:
    from replicator.app.database import Database

T = TypeVar("T")
Conflict = Literal["abort", "ignore", "replace"]
MOST_ROWS = 500  # of one statement; more is not faster (docs/guide/application.md)


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of ``size``; the last one may be shorter. Takes no more from ``items``
    than the list at hand."""
    if size < 1:
        raise ConfigError("a chunk has at least one item", setting="size", code="out_of_bounds")
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


def fetch_chunks(cursor: sqlite3.Cursor, size: int = 1000) -> Iterator[list[Row]]:
    """The rows of a cursor in lists, all of the same state. The read lasts until the end of the
    loop; use it in ``with db.read()``."""
    while chunk := cursor.fetchmany(size):
        yield chunk


def scan(
    database: Database,
    table: str,
    *,
    key: str = "rowid",
    columns: Sequence[str] = (),
    size: int = 1000,
) -> Iterator[list[Row]]:
    """The rows of a table in the order of ``key``, in lists of ``size``, each of a read of its
    own. ``key`` is a column with unique values that are not NULL; it is the first one of each row,
    before ``columns`` (default: all). A row that is changed meanwhile appears in its old or its new
    state; one that is inserted behind the position of the loop is left out.
    """
    wanted = ", ".join(map(identifier, columns)) if columns else "*"
    order = identifier(key) if key != "rowid" else "rowid"
    first = f"SELECT {order}, {wanted} FROM {identifier(table)}"  # noqa: S608 - names are quoted
    last = f" ORDER BY {order} LIMIT {int(size)}"
    rows = database.fetch_all(first + last)
    while rows:
        yield rows
        rows = database.fetch_all(f"{first} WHERE {order} > ?{last}", (rows[-1][0],))


def insert_rows(
    connection: sqlite3.Connection,
    table: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    conflict: Conflict = "abort",
) -> int:
    """Insert rows with few statements of many bound parameters; the number of inserted rows.

    A statement has at most as many parameters as the connection permits
    (``SQLITE_LIMIT_VARIABLE_NUMBER``). The statements share the transaction of the caller.
    ``conflict`` is for rows that violate a UNIQUE constraint. ``ConfigError`` for a row of another
    length than ``columns``.
    """
    if conflict not in get_args(Conflict):
        raise ConfigError(f"there is no conflict resolution {conflict!r}", setting="conflict")
    most = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // max(1, len(columns))
    if not columns or most < 1:
        raise ConfigError(f"{len(columns)} columns cannot be bound", setting="columns")
    start = (
        f"INSERT OR {conflict.upper()} INTO {identifier(table)} "  # noqa: S608 - names are quoted
        f"({', '.join(map(identifier, columns))}) VALUES "
    )
    one = placeholders(len(columns))
    inserted = 0
    for chunk in chunks(rows, min(most, MOST_ROWS)):
        values = [value for row in chunk for value in _checked(row, len(columns))]
        inserted += connection.execute(start + ", ".join([one] * len(chunk)), values).rowcount
    return inserted


def _checked(row: Sequence[Any], length: int) -> Sequence[Any]:
    if len(row) != length:
        raise ConfigError(f"a row has {len(row)} values for {length} columns", setting="rows")
    return row
