"""The switch of a database to WAL mode, the one change that a replicator makes.

Owns: the rule that no connection which uses the database is surprised by it, and its consequence in
words. Refuses: to switch a database that is in use, unless that was asked for.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from replicator.errors import DatabaseBusy, DatabaseUnusable
from replicator.sqlite.check import openers
from replicator.sqlite.connect import LOCKED, primary_code
from replicator.sqlite.wal_index import locked_by_another
from replicator.system import process
from replicator.system.database_files import count_descriptors
from replicator.system.files import RawFile

LOCKS_FIRST, LOCKS_SIZE = 0x40000000, 512  # of all connections in rollback mode

CONSEQUENCE = (
    "readers and writers no longer wait for each other; but a transaction that begins with a read "
    "and writes later fails at once, whatever its busy timeout (SQLITE_BUSY_SNAPSHOT), if another "
    "connection wrote in between: let it begin with BEGIN IMMEDIATE"
)


def switch_to_wal(
    connection: sqlite3.Connection, path: Path, raw: RawFile, *, in_use: bool
) -> None:
    """Switch the database; ``in_use``: even if another connection uses it.

    ``DatabaseBusy`` (``wal_mode_waits``): later. ``DatabaseUnusable``: never.
    """
    user = "" if in_use else _user_of(path, raw)
    if user:
        raise _waits(path, user)
    try:
        mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    except sqlite3.Error as error:
        if primary_code(error) in LOCKED:
            raise _waits(path, "a transaction of another connection") from error
        raise
    if mode != "wal":
        raise DatabaseUnusable(
            f"{path} cannot be switched to WAL mode (it stays in {mode} mode)",
            path=path,
            code="wal_mode_refused",
            hint="its file system must support shared memory; network file systems do not",
        )


def _user_of(path: Path, raw: RawFile) -> str:
    """Names another connection to the database, as far as the system shows one."""
    others = openers(path)
    if others:
        return f"process {others[0]}"
    try:
        if locked_by_another(raw.fileno(), LOCKS_FIRST, LOCKS_SIZE):
            return "another process"
        ours = 2  # the checkpointer, raw reads
        if not process.claimed() and count_descriptors(raw.identity()) > ours:
            return "this process"
    except OSError:  # no such system calls here
        return ""
    return ""


def _waits(path: Path, user: str) -> DatabaseBusy:
    return DatabaseBusy(
        f"{path} is not in WAL mode, and {user} uses it: the switch to WAL mode waits until no "
        "other connection does",
        path=path,
        code="wal_mode_waits",
        hint="end the application for a moment, let it run PRAGMA journal_mode=WAL, or start with "
        "--switch-in-use",
    )
