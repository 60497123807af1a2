"""The order of indexes: collation and direction of each column, from the SQL of a schema.

Owns a database in memory that gets the tables and indexes of the schema, without rows, and no right
to do anything else. Refuses to guess: an index whose SQL this library cannot run has no order.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterable

from replicator.format.btree import KeyColumn

MOST_STEPS = 1_000_000  # of SQLite's machine for one statement
_CREATES = re.compile(r"\s*CREATE\s+(UNIQUE\s+)?(TABLE|INDEX)\b", re.IGNORECASE)
_DENIED = frozenset(
    {
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_ATTACH,
        sqlite3.SQLITE_DETACH,
        sqlite3.SQLITE_PRAGMA,
        sqlite3.SQLITE_CREATE_VTABLE,
        sqlite3.SQLITE_RECURSIVE,
    }
)


def index_orders(statements: Iterable[str]) -> dict[str, tuple[KeyColumn, ...]]:
    """The columns of each index by its name in lower case, and those of the primary key of a table
    without rowids by the name of the table. ``statements`` begin with the tables."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        _create_all(connection, statements)
        return dict(_orders(connection))


def _create_all(connection: sqlite3.Connection, statements: Iterable[str]) -> None:
    connection.set_authorizer(
        lambda action, *_: sqlite3.SQLITE_DENY if action in _DENIED else sqlite3.SQLITE_OK
    )
    for statement in filter(_CREATES.match, statements):
        connection.set_progress_handler(lambda: 1, MOST_STEPS)
        with contextlib.suppress(sqlite3.Error, sqlite3.Warning, ValueError):
            connection.execute(statement)
    connection.set_authorizer(None)
    connection.set_progress_handler(None, 0)


def _orders(connection: sqlite3.Connection) -> Iterable[tuple[str, tuple[KeyColumn, ...]]]:
    tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    for (table,) in tables:
        for _, name, _, origin, *_ in connection.execute(
            "SELECT * FROM pragma_index_list(?)", (table,)
        ).fetchall():
            columns = connection.execute(
                "SELECT coll, desc FROM pragma_index_xinfo(?) ORDER BY seqno", (name,)
            )
            order = tuple(KeyColumn(coll or "BINARY", bool(desc)) for coll, desc in columns)
            yield name.lower(), order
            if origin == "pk":
                yield table.lower(), order
