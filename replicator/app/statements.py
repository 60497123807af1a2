"""Single statements: their parameters, their rows, the result of one that writes.

Owns the reset of each statement. Refuses to keep a cursor open: its read mark would keep the WAL
from a reset.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

from replicator.errors import ReplicatorError

T = TypeVar("T")
Parameters: TypeAlias = Sequence[Any] | Mapping[str, Any]
Row: TypeAlias = tuple[Any, ...]


class Written(NamedTuple):
    """The result of a statement that writes: the rows of ``RETURNING``, the number of changed
    rows (-1 if SQLite has none), and the rowid of the last inserted row."""

    rows: list[Row]
    changes: int
    last_row_id: int | None


def rows_of(
    connection: sqlite3.Connection,
    sql: str,
    parameters: Parameters,
    take: Callable[[sqlite3.Cursor], T],
) -> T:
    """The rows that ``take`` gets from the cursor."""
    cursor = connection.execute(sql, parameters)
    try:
        return take(cursor)
    finally:
        cursor.close()


def written(connection: sqlite3.Connection, sql: str, parameters: Parameters) -> Written:
    """Run a statement to its end."""
    cursor = connection.execute(sql, parameters)
    rows = cursor.fetchall() if cursor.description is not None else []
    return Written(rows, cursor.rowcount, cursor.lastrowid)


def committed(connection: sqlite3.Connection, sql: str, parameters: Parameters) -> Written:
    """Run a statement that commits on its own; ``ReplicatorError`` (code
    ``transaction_left_open``) if it began a transaction, which is rolled back."""
    result = written(connection, sql, parameters)
    if connection.in_transaction:
        connection.rollback()
        raise ReplicatorError(
            f"{sql!r} leaves a transaction open",
            code="transaction_left_open",
            hint="use `with db.transaction()`",
        )
    return result
