"""Online backup, checks, checkpoints and statistics of the planner.

Owns these operations on connections that it is given. Refuses to overwrite a file unless it is
asked to, and to checkpoint in a mode that waits for a replicator.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from replicator.errors import LocalIOError, TargetExists
from replicator.system.files import LOCAL, sibling

PAGES = 1024  # copied in one step, 4 MiB of usual pages
ANALYSIS_LIMIT = 400  # rows of each index that `optimize` looks at, as SQLite recommends

BackupProgress = Callable[[int, int], object]


@dataclass(frozen=True, slots=True)
class ForeignKeyProblem:
    """A row of ``table`` refers to a row of ``parent`` that does not exist."""

    table: str
    rowid: int | None  # None for a table without one
    parent: str
    constraint: int  # its number, as in PRAGMA foreign_key_list


@dataclass(frozen=True, slots=True)
class DatabaseCheck:
    """The result of a check; ``problems`` are SQLite's own lines."""

    problems: tuple[str, ...]
    foreign_keys: tuple[ForeignKeyProblem, ...]

    @property
    def ok(self) -> bool:
        return not self.problems and not self.foreign_keys


@dataclass(frozen=True, slots=True)
class CheckpointResult:
    """Of a passive checkpoint: frames in the WAL, and those that the file has now. ``busy`` if
    another one was running."""

    busy: bool
    frames: int
    copied: int


def back_up(
    connection: sqlite3.Connection,
    target: Path,
    *,
    overwrite: bool,
    progress: BackupProgress | None,
) -> None:
    """Copy the state that ``connection`` reads to a new file. The file appears when it is complete
    and on the disk. ``TargetExists``, ``LocalIOError``."""
    if os.path.lexists(target) and not overwrite:
        raise TargetExists(f"{target} exists", path=target, hint="give another path, or overwrite")
    draft = LOCAL.create(sibling(target, ".tmp"))
    try:
        copy = sqlite3.connect(draft.path)  # the draft holds no lock
        try:
            connection.backup(
                copy,
                pages=PAGES,
                progress=progress and _shown(progress),
            )
        finally:
            copy.close()
        LOCAL.publish(draft, target)
    except sqlite3.Error as error:
        draft.discard()
        raise LocalIOError(f"cannot write {target}: {error}", path=target) from error
    except BaseException:
        draft.discard()
        raise


def _shown(progress: BackupProgress) -> Callable[[int, int, int], object]:
    """SQLite counts what remains."""
    return lambda _, remaining, total: progress(total - remaining, total)


def check(connection: sqlite3.Connection, *, quick: bool) -> DatabaseCheck:
    """SQLite's ``integrity_check``, or ``quick_check`` without the indexes, and
    ``foreign_key_check``. Reads the whole database."""
    lines = connection.execute(f"PRAGMA {'quick' if quick else 'integrity'}_check").fetchall()
    keys = connection.execute("PRAGMA foreign_key_check").fetchall()
    return DatabaseCheck(
        tuple(line for (line,) in lines if line != "ok"),
        tuple(ForeignKeyProblem(*row) for row in keys),
    )


def checkpoint(connection: sqlite3.Connection) -> CheckpointResult:
    """A passive checkpoint, the only kind that waits for no reader and no replicator."""
    busy, frames, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return CheckpointResult(bool(busy), frames, copied)


def optimize(connection: sqlite3.Connection) -> None:
    """Renew the statistics of the query planner where they are out of date."""
    connection.execute(f"PRAGMA analysis_limit = {ANALYSIS_LIMIT}").close()
    connection.execute("PRAGMA optimize").close()
