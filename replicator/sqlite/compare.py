"""Two databases at rest, compared by their tables.

Owns: the SQL. Rows are matched by rowid, in WITHOUT ROWID tables by primary key, and compared
column by column, type and bytes, so that 1 and 1.0, or ``a`` and ``A`` in a column that ignores
case, differ. Memory is SQLite's page cache, whatever the size of a table: a join walks one table
and looks rows up in the other. Neither file is written.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self
from urllib.parse import quote

from replicator.errors import DamageError, ReplicatorError

_ROWID_NAMES = ("rowid", "_rowid_", "oid")
_UNREADABLE = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})
_OURS = "name NOT LIKE 'sqlite~_%' ESCAPE '~'"


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """``kind`` is table, index, view or trigger."""

    kind: str
    name: str
    change: Literal["added", "removed", "altered"]


@dataclass(frozen=True, slots=True)
class TableChange:
    """Rows that are only in the newer database, only in the older one, or not the same in both.
    ``note`` says what to know of the figures, or why there are none (they are None then)."""

    table: str
    inserted: int | None
    deleted: int | None
    updated: int | None
    note: str = ""


class Comparison:
    """``old`` and ``new`` are files that nobody writes to. Use it as a context manager.
    ``DamageError`` when SQLite cannot read one."""

    def __init__(self, old: Path, new: Path) -> None:
        self._connection = sqlite3.connect(_uri(old), uri=True, isolation_level=None)
        with _named():
            self._connection.execute("ATTACH ? AS new", (_uri(new),))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._connection.close()

    def schema(self) -> list[SchemaChange]:
        """What was created, dropped or altered, by kind and name."""
        with _named():
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
        """Every table whose rows differ, by name; virtual ones by the tables they rest on."""
        with _named():
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
            if _code(error) in _UNREADABLE:
                raise DamageError(f"table {name}: {error}") from error
            return TableChange(name, None, None, None, f"cannot be compared: {error}")

    def _compare_rows(self, name: str) -> TableChange:
        before, after = self._count("main", name), self._count("new", name)
        key, other = self._key("main", name), self._key("new", name)
        if key != other or not key:
            return TableChange(name, after, before, 0, "has another key; every row counts as new")
        columns = self._columns("main", name)
        shared = [column for column in self._columns("new", name) if column in columns]
        both, updated = self._connection.execute(
            f"SELECT count(*), coalesce(sum({_differs(shared)}), 0) FROM main.{_quoted(name)} a "
            f"CROSS JOIN new.{_quoted(name)} b ON "
            + " AND ".join(f"a.{column} = b.{column}" for column in key)
        ).fetchone()
        same = set(columns) == set(self._columns("new", name))
        note = "" if same else "its columns changed; only those in both were compared"
        return TableChange(name, after - both, before - both, updated, note)

    def _count(self, side: str, name: str) -> int:
        (count,) = self._connection.execute(
            f"SELECT count(*) FROM {side}.{_quoted(name)}"
        ).fetchone()
        return int(count)

    def _columns(self, side: str, name: str) -> list[str]:
        """Of those that are stored; a generated column follows from the others."""
        return [row[1] for row in self._info(side, name)]

    def _key(self, side: str, name: str) -> list[str]:
        """What tells rows apart, quoted; empty where nothing does."""
        info = self._info(side, name)
        names = {row[1].lower() for row in info}
        for rowid in _ROWID_NAMES:
            if rowid in names:
                continue
            with contextlib.suppress(sqlite3.OperationalError):  # it is a WITHOUT ROWID table
                self._connection.execute(f"SELECT {rowid} FROM {side}.{_quoted(name)} LIMIT 0")
                return [rowid]
        return [_quoted(row[1]) for row in sorted(info, key=lambda row: row[5]) if row[5]]

    def _info(self, side: str, name: str) -> list[tuple[int, str, str, int, str, int]]:
        return self._connection.execute(f"PRAGMA {side}.table_info({_quoted(name)})").fetchall()


def _differs(columns: list[str]) -> str:
    """Whether rows ``a`` and ``b`` are not the same in ``columns``, type and bytes."""
    if not columns:
        return "0"
    old = [f"a.{_quoted(column)} COLLATE BINARY" for column in columns]
    old += [f"typeof(a.{_quoted(column)})" for column in columns]
    new = [f"b.{_quoted(column)}" for column in columns]
    new += [f"typeof(b.{_quoted(column)})" for column in columns]
    return f"({', '.join(old)}) IS NOT ({', '.join(new)})"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _uri(path: Path) -> str:
    return f"file:{quote(str(path))}?mode=ro&immutable=1"


@contextlib.contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        kind = DamageError if _code(error) in _UNREADABLE else ReplicatorError
        raise kind(f"the databases cannot be compared: {error}") from error


def _code(error: sqlite3.Error) -> int:
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF
