"""SQLite's checks of a database that no process writes, and the preparation of a replacement.

Owns the connections that a restore opens: to a finished file that no other process uses yet (read
only, immutable, so that SQLite creates no ``-wal`` or ``-shm``), and to the old database before it
is replaced. Refuses to change a database that another connection has open.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from replicator.errors import (
    Cancelled,
    CheckFailed,
    DamageError,
    LocalIOError,
    ReplicatorError,
    TargetExists,
)
from replicator.sqlite.connect import (
    LOCKED,
    UNREADABLE,
    connect,
    database_uri,
    immutable_uri,
    primary_code,
)

STEPS = 100_000  # of SQLite's virtual machine, some milliseconds, between two calls of cancelled


def check_database(
    path: Path, *, full: bool, cancelled: Callable[[], bool] = lambda: False
) -> None:
    """Run ``quick_check`` or ``integrity_check``. ``DamageError`` quotes the first finding.

    Raises ``Cancelled`` soon after ``cancelled`` returns True.
    """
    pragma = "integrity_check" if full else "quick_check"
    try:
        with contextlib.closing(connect(immutable_uri(path))) as connection:
            connection.set_progress_handler(cancelled, STEPS)
            (answer,) = connection.execute(f"PRAGMA {pragma}(1)").fetchone()
    except sqlite3.Error as error:
        code = primary_code(error)
        if code == sqlite3.SQLITE_INTERRUPT:
            raise Cancelled(f"{pragma} was cancelled") from error
        if code in UNREADABLE:
            raise DamageError(f"{pragma} failed: {error}", code="malformed_database") from error
        raise ReplicatorError(f"{pragma} failed: {error}") from error
    if answer != "ok":
        finding = str(answer).splitlines()[-1]
        raise DamageError(f"{pragma} found: {finding}", code="malformed_database")


def require_true(path: Path, sql: str) -> None:
    """Run one statement. ``CheckFailed`` unless it gives one value, and that is true."""
    try:
        with contextlib.closing(connect(immutable_uri(path))) as connection:
            rows = connection.execute(sql).fetchmany(2)
    except (sqlite3.Error, sqlite3.Warning) as error:
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
