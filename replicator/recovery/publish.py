"""Puts a proved database at its output path.

The order of the steps, and the state that a kill leaves after each:

    1. the new file is complete, proved and synced in the partial directory: the output is
       unchanged
    2. no process has the old database open, and SQLite checkpoints its WAL: SQLite's own crash
       safety holds, the old database is whole, now without a WAL
    3. side files that are left hold nothing (or belong to a file SQLite cannot read) and move
       into the partial directory: the old file is as whole as before
    4. the marker of an earlier restore is removed
    5. rename, the commit point; then the directory is synced: only the new database remains. If
       that sync fails, so does the restore, though the new database is there: a power cut may
       bring the old one back
    6. the marker of this restore is written; without it a replicator does not know that the file
       was restored, but the restore is complete
    7. the partial directory is removed

A start that restores over a file does not replace it: in place of steps 2 and 3 the file and its
side files move into a directory of their own, see :mod:`.aside`.

So the old database never leaves a ``-wal`` next to the new one. Refuses to replace anything
without ``overwrite``, and any database that is in use.
"""

from __future__ import annotations

import enum
import logging
import os
import stat
from pathlib import Path

from replicator.errors import LocalIOError, TargetExists
from replicator.format.database import HEADER_BYTES, parse_database_header
from replicator.recovery.aside import move_aside
from replicator.recovery.ownership import refuse_lock_out, restored_owner
from replicator.recovery.partial import Partial
from replicator.sqlite.check import checkpoint_wal, in_use, openers
from replicator.sqlite.local_file import FileState, examine_file
from replicator.system.directory import refuse_links
from replicator.system.files import Files, HeldName, sibling
from replicator.system.paths import side_files
from replicator.system.restore_marker import remove_restore_marker, write_restore_marker

log = logging.getLogger(__name__)


class Existing(enum.Enum):
    """What happens to files that have the output's name."""

    REFUSE = enum.auto()
    REPLACE = enum.auto()
    MOVE_ASIDE = enum.auto()
    MOVE_EMPTY = enum.auto()  # aside, but a database with content is refused


def check_output(output: Path, existing: Existing) -> None:
    """Refuse at once what :func:`publish` would refuse at the end."""
    overwrite = existing is not Existing.REFUSE
    if output.is_dir():
        raise TargetExists(f"{output} is a directory", path=output)
    if os.path.lexists(output):
        if not overwrite:
            raise TargetExists(
                f"{output} exists",
                path=output,
                hint="restore with --overwrite, or to another path",
            )
        if existing is Existing.MOVE_EMPTY and examine_file(output) is FileState.CONTENT:
            raise TargetExists(
                f"{output} exists by now",
                path=output,
                hint="an application made it during the restore: stop it, and choose between the "
                "two; the downloaded parts are kept",
            )
        _refuse_openers(output)
        refuse_lock_out(output)
    elif not overwrite and (side := side_files(output)):
        raise TargetExists(
            f"{side[0]} exists without its database; it may hold transactions",
            path=side[0],
            hint="bring its database back or move it away; --overwrite discards it",
        )


def _refuse_openers(output: Path) -> None:
    pids = openers(output)
    if pids:
        raise in_use(output, f"process {pids[0]}")


def publish(
    partial: Partial, output: Path, marker: dict[str, object], existing: Existing, files: Files
) -> None:
    """Steps 2 to 7. ``marker`` holds the position of the file in the archive, for a replicator."""
    check_output(output, existing)
    if files.exists(partial.output):
        refuse_links(output, *side_files(output))
        refuse_lock_out(output)
    owner = restored_owner(output, _mode(partial.database, files))
    if existing in {Existing.MOVE_ASIDE, Existing.MOVE_EMPTY}:
        move_aside(output, files)
    elif files.exists(partial.output):
        checkpoint_wal(output)
    for side in side_files(output):
        name = f"replaced{side.name.removeprefix(output.name)}"
        files.rename(
            sibling(partial.output, side.name.removeprefix(output.name)), partial.entry(name)
        )
    files.sync_parent(partial.output)
    remove_restore_marker(partial.place, output.name, files)
    files.set_owner(partial.database, owner.uid, owner.gid, owner.mode)
    marker = marker | _identity(partial.database, files)
    files.rename(partial.database, partial.output)
    try:
        write_restore_marker(partial.place, output.name, marker, files)
    except LocalIOError as error:
        log.warning("%s; a replicator will not know that the database was restored", error)
    partial.remove()


def _mode(restored: HeldName, files: Files) -> int:
    with files.open_read(restored) as file:
        return stat.S_IMODE(os.fstat(file.fileno()).st_mode)


def _identity(restored: HeldName, files: Files) -> dict[str, object]:
    """The names by which a replicator recognises the file later."""
    with files.open_read(restored) as file:
        header = parse_database_header(file.pread(HEADER_BYTES, 0))
        return {
            "file": list(file.identity()),
            "change_counter": header.change_counter if header is not None else 0,
        }
