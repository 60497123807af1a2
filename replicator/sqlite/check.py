"""Statements about a database that no process writes, and the preparation of a replacement.

Owns two connections: to a finished file that no other process uses yet (read only, immutable, so
that SQLite creates no ``-wal`` or ``-shm``), and to the old database before it is replaced. Refuses
to change a database that another connection has open.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from replicator.errors import CheckFailed, ConfigError, Inconclusive, LocalIOError, TargetExists
from replicator.sqlite.connect import (
    LOCKED,
    UNREADABLE,
    Prepare,
    connect,
    database_uri,
    immutable_uri,
    primary_code,
    read_past_schema,
    unprepared,
)
from replicator.sqlite.integrity import lacking, unreadable_schema
from replicator.sqlite.read_only import allow_only_reading

DISK = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})


def require_true(path: Path, sql: str, prepare: Prepare = unprepared) -> None:
    """Run one statement. ``CheckFailed`` unless it gives one value, and that is true;
    ``ConfigError`` if it does more than read; ``Inconclusive`` if this SQLite library cannot run
    it, or the disk does not take its temporary files. ``prepare`` receives the connection first."""
    reason = ""
    refused: list[int] = []
    try:
        with contextlib.closing(connect(immutable_uri(path))) as connection:
            prepare(connection)
            reason = unreadable_schema(connection)
            refused = allow_only_reading(connection, trusted=prepare is not unprepared)
            rows = connection.execute(sql).fetchmany(2)
    except (sqlite3.Error, sqlite3.Warning) as error:
        code = primary_code(error) if isinstance(error, sqlite3.Error) else 0
        if refused or code == sqlite3.SQLITE_READONLY:
            raise ConfigError(
                f"{sql!r} is not permitted: {error}",
                setting="assert",
                code="statement_forbidden",
                hint="a statement about a restored database can only read it",
            ) from error
        if code in DISK:
            raise Inconclusive(
                f"{sql!r} cannot be run: {error}",
                statement=sql,
                code="disk_limit",
                hint="its temporary files take too much space; write a statement that sorts less",
            ) from error
        if reason or lacking(error):
            raise Inconclusive(
                f"{sql!r} cannot be run: {error}",
                statement=sql,
                hint="supply what is missing with --load-extension, or use a newer SQLite",
            ) from error
        raise CheckFailed(
            f"{sql!r} failed: {error}", statement=sql, code="statement_failed"
        ) from error
    if len(rows) != 1 or len(rows[0]) != 1:
        raise CheckFailed(
            f"{sql!r} does not give one value",
            statement=sql,
            code="not_one_value",
            hint="write a statement like SELECT count(*) > 0 FROM users",
        )
    if not rows[0][0]:
        raise CheckFailed(f"{sql!r} is not true: it gave {rows[0][0]!r}", statement=sql)


def checkpoint_wal(path: Path) -> bool:
    """Copy the whole WAL into the database file and remove the WAL.

    Afterwards the file alone is the whole database. ``TargetExists`` if any connection has it
    open. False if SQLite cannot read the file; the file is unchanged then.
    """
    try:
        with contextlib.closing(connect(database_uri(path, "mode=rw"))) as connection:
            read_past_schema(connection)
            connection.execute("PRAGMA locking_mode = EXCLUSIVE").fetchone()
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error as error:
        if primary_code(error) in LOCKED:
            raise in_use(path, "another connection") from error
        if primary_code(error) in UNREADABLE:
            return False
        raise LocalIOError(f"cannot checkpoint the WAL of {path}: {error}", path=path) from error
    return True


def in_use(path: Path, by: str) -> TargetExists:
    return TargetExists(
        f"{path} is open in {by}",
        path=path,
        code="target_in_use",
        hint="stop the process that uses it, or restore to another path",
    )


def openers(path: Path) -> list[int]:
    """Ids of the other processes that have the file open, as far as /proc shows them.

    A connection without a transaction holds no lock in rollback mode, so locks alone are not
    enough. Empty on a system without /proc.
    """
    try:
        wanted = path.stat()
        processes = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    others = (int(name) for name in processes if int(name) != os.getpid())
    return [pid for pid in others if _has_open(pid, path.name, wanted)]


def _has_open(pid: int, file_name: str, wanted: os.stat_result) -> bool:
    """Looks only at files of that name, because a stat may hang on a dead network mount."""
    try:
        links = [f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd")]
    except OSError:  # the process has ended, or belongs to another user
        return False
    for link in links:
        with contextlib.suppress(OSError):
            if os.path.basename(os.readlink(link)) == file_name and os.path.samestat(
                os.stat(link), wanted
            ):
                return True
    return False
