"""Compares two databases by their tables.

Owns the SQL. Rows are matched by rowid, in WITHOUT ROWID tables by primary key, and compared
column by column, type and bytes, so that 1 and 1.0, or ``a`` and ``A`` in a column that ignores
case, differ. The memory is SQLite's page cache for tables of any size: a join walks one table and
looks up rows in the other. Refuses to write either file; no process may do so.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from replicator.errors import DamageError
from replicator.sqlite.connect import (
    UNREADABLE,
    Prepare,
    connect,
    errors_of,
    immutable_uri,
    primary_code,
    quoted,
    read_past_schema,
    unprepared,
)

COMPARISON = "the comparison"
_ROWID_NAMES = ("rowid", "_rowid_", "oid")
_OURS = "name NOT LIKE 'sqlite~_%' ESCAPE '~'"


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """``kind`` is table, index, view or trigger."""

    kind: str
    name: str
    change: Literal["added", "removed", "altered"]


@dataclass(frozen=True, slots=True)
class TableChange:
    """Rows that are only in the newer database, only in the older one, or different in both.

    ``note`` qualifies the figures, or explains why there are none: this SQLite library lacks
    something that the table needs, and nothing is known of its rows (:attr:`inconclusive`).
    """

    table: str
    inserted: int | None
    deleted: int | None
    updated: int | None
    note: str = ""

    @property
    def inconclusive(self) -> bool:
        return self.inserted is None


class Comparison:
    """Compares the files ``old`` and ``new``, which no process writes. A context manager.

    ``prepare`` receives the connection first, to register what the schemas need. Entries of a
    schema that this library cannot parse are compared as text. ``DamageError`` if SQLite cannot
    read one of the files.
    """

    def __init__(self, old: Path, new: Path, prepare: Prepare = unprepared) -> None:
        self._connection = connect(immutable_uri(old))
        prepare(self._connection)
        with errors_of(COMPARISON):
            read_past_schema(self._connection)
            self._connection.execute("ATTACH ? AS new", (immutable_uri(new),))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._connection.close()

    def schema(self) -> list[SchemaChange]:
        """The objects that were created, dropped or altered, by kind and name."""
        with errors_of(COMPARISON):
            old, new = self._objects("main"), self._objects("new")
        changes = []
        for kind, name in sorted(old.keys() | new.keys()):
            before, after = old.get((kind, name)), new.get((kind, name))
            if before is None or after is None:
                changes.append(SchemaChange(kind, name, "added" if before is None else "removed"))
            elif before != after:
                changes.append(SchemaChange(kind, name, "altered"))
        return changes

    def _objects(self, side: str) -> dict[tuple[str, str], tuple[str | None]]:
        rows = self._connection.execute(
            f"SELECT type, name, sql FROM {side}.sqlite_schema WHERE {_OURS}"
        )
        return {(kind, name): (sql,) for kind, name, sql in rows}

    def tables(self) -> Iterator[TableChange]:
        """Every table whose rows differ, by name; for a virtual table, the tables that store it."""
        with errors_of(COMPARISON):
            old, new = self._stored("main"), self._stored("new")
        for name in sorted(old | new):
            change = self._compare(name, in_old=name in old, in_new=name in new)
            if change.note or (change.inserted, change.deleted, change.updated) != (0, 0, 0):
                yield change

    def _stored(self, side: str) -> set[str]:
        rows = self._connection.execute(
            f"SELECT name FROM {side}.sqlite_schema WHERE type = 'table' AND rootpage > 0 "
            f"AND {_OURS}"
        )
        return {name for (name,) in rows}

    def _compare(self, name: str, *, in_old: bool, in_new: bool) -> TableChange:
        try:
            if not in_old:
                return TableChange(name, self._count("new", name), 0, 0, "new table")
            if not in_new:
                return TableChange(name, 0, self._count("main", name), 0, "dropped")
            return self._compare_rows(name)
        except sqlite3.Error as error:
            if primary_code(error) in UNREADABLE:
                raise DamageError(f"table {name}: {error}", code="malformed_database") from error
            return TableChange(name, None, None, None, f"cannot be compared: {error}")

    def _compare_rows(self, name: str) -> TableChange:
        before, after = self._count("main", name), self._count("new", name)
        key, other = self._key("main", name), self._key("new", name)
        if key != other or not key:
            return TableChange(name, after, before, 0, "has another key; every row counts as new")
        columns = self._columns("main", name)
        shared = [column for column in self._columns("new", name) if column in columns]
        both, updated = self._connection.execute(
            f"SELECT count(*), coalesce(sum({_differs(shared)}), 0) FROM main.{quoted(name)} a "
            f"CROSS JOIN new.{quoted(name)} b ON "
            + " AND ".join(f"a.{column} = b.{column}" for column in key)
        ).fetchone()
        same = set(columns) == set(self._columns("new", name))
        note = "" if same else "its columns changed; only those in both were compared"
        return TableChange(name, after - both, before - both, updated, note)

    def _count(self, side: str, name: str) -> int:
        (count,) = self._connection.execute(
            f"SELECT count(*) FROM {side}.{quoted(name)}"
        ).fetchone()
        return int(count)

    def _columns(self, side: str, name: str) -> list[str]:
        """The stored columns; a generated column follows from the others."""
        return [row[1] for row in self._info(side, name)]

    def _key(self, side: str, name: str) -> list[str]:
        """The columns that identify a row, quoted; empty if there are none."""
        info = self._info(side, name)
        names = {row[1].lower() for row in info}
        for rowid in _ROWID_NAMES:
            if rowid in names:
                continue
            with contextlib.suppress(sqlite3.OperationalError):  # it is a WITHOUT ROWID table
                self._connection.execute(f"SELECT {rowid} FROM {side}.{quoted(name)} LIMIT 0")
                return [rowid]
        return [quoted(row[1]) for row in sorted(info, key=lambda row: row[5]) if row[5]]

    def _info(self, side: str, name: str) -> list[tuple[int, str, str, int, str, int]]:
        return self._connection.execute(f"PRAGMA {side}.table_info({quoted(name)})").fetchall()


def _differs(columns: list[str]) -> str:
    """SQL that is true if rows ``a`` and ``b`` differ in type or bytes of ``columns``."""
    if not columns:
        return "0"
    old = [f"a.{quoted(column)} COLLATE BINARY" for column in columns]
    old += [f"typeof(a.{quoted(column)})" for column in columns]
    new = [f"b.{quoted(column)}" for column in columns]
    new += [f"typeof(b.{quoted(column)})" for column in columns]
    return f"({', '.join(old)}) IS NOT ({', '.join(new)})"
