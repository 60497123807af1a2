"""SQLite's own look at a database at rest: its checks, and making way for a new file.

Owns: the connections a restore opens, to a finished file that nobody uses yet (read only,
immutable, so that no ``-wal`` or ``-shm`` appears beside it) and to the old database that is
about to be replaced. Refuses to touch a database that anybody has open.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from replicator.errors import CheckFailed, DamageError, LocalIOError, ReplicatorError, TargetExists

STEPS = 100_000  # of SQLite's machine, some milliseconds, between two questions
SIDE_SUFFIXES = ("-wal", "-shm", "-journal")
_UNREADABLE = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})
_LOCKED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})


def check_database(
    path: Path, *, full: bool, cancelled: Callable[[], bool] = lambda: False
) -> None:
    """Run ``quick_check`` or ``integrity_check``; ``DamageError`` quotes the first finding.
    ``cancelled`` is asked now and then, and ends it with a plain ``ReplicatorError``."""
    pragma = "integrity_check" if full else "quick_check"
    try:
        with contextlib.closing(_connect(path, "mode=ro&immutable=1")) as connection:
            connection.set_progress_handler(cancelled, STEPS)
            (answer,) = connection.execute(f"PRAGMA {pragma}(1)").fetchone()
    except sqlite3.Error as error:
        kind = DamageError if _code(error) in _UNREADABLE else ReplicatorError
        raise kind(f"{pragma} failed: {error}") from error
    if answer != "ok":
        raise DamageError(f"{pragma} found: {str(answer).splitlines()[-1]}")


def require_true(path: Path, sql: str) -> None:
    """Run one statement that must give one value, and a true one; ``CheckFailed``."""
    try:
        with contextlib.closing(_connect(path, "mode=ro&immutable=1")) as connection:
            rows = connection.execute(sql).fetchmany(2)
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise CheckFailed(f"{sql!r} cannot be answered: {error}") from error
    if len(rows) != 1 or len(rows[0]) != 1:
        raise CheckFailed(
            f"{sql!r} does not give one value",
            hint="write a statement like SELECT count(*) > 0 FROM users",
        )
    if not rows[0][0]:
        raise CheckFailed(f"{sql!r} does not hold: it gave {rows[0][0]!r}")


def side_files(path: Path) -> list[Path]:
    """The ``-wal``, ``-shm`` and ``-journal`` files that exist beside a database."""
    beside = [path.with_name(path.name + suffix) for suffix in SIDE_SUFFIXES]
    return [file for file in beside if os.path.lexists(file)]


def fold_log(path: Path) -> bool:
    """Bring everything in the log into the database file and remove the log.

    Afterwards the file alone is the whole database. ``TargetExists`` if any connection has it
    open. False if SQLite cannot read the file, which is then left as it is.
    """
    try:
        with contextlib.closing(_connect(path, "mode=rw")) as connection:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE").fetchone()
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error as error:
        if _code(error) in _LOCKED:
            raise in_use(path, "another connection") from error
        if _code(error) in _UNREADABLE:
            return False
        raise LocalIOError(f"cannot fold the log of {path}: {error}") from error
    return True


def in_use(path: Path, by: str) -> TargetExists:
    return TargetExists(
        f"{path} is open in {by}", hint="stop what uses it, or restore to another path"
    )


def openers(path: Path) -> list[int]:
    """Process ids, other than ours, that hold the file open, as far as /proc shows them.

    A connection without a transaction holds no lock in rollback mode, so locks alone do not
    tell. Empty where there is no /proc.
    """
    try:
        wanted = path.stat()
        processes = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    others = (int(name) for name in processes if int(name) != os.getpid())
    return [pid for pid in others if _holds(pid, path.name, wanted)]


def _holds(pid: int, file_name: str, wanted: os.stat_result) -> bool:
    """Only files of that name are looked at, for a look may hang on somebody's dead mount."""
    try:
        links = [f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd")]
    except OSError:  # gone, or not ours to look at
        return False
    for link in links:
        with contextlib.suppress(OSError):
            if os.path.basename(os.readlink(link)) == file_name and os.path.samestat(
                os.stat(link), wanted
            ):
                return True
    return False


def _connect(path: Path, options: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(str(path))}?{options}", uri=True, timeout=0, isolation_level=None
    )


def _code(error: sqlite3.Error) -> int:
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF
