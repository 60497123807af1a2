"""Putting a proved database in its place.

The order, and what a kill leaves behind after each step:

    1. the new file is complete, proved and synced in the partial directory: the target is as it
       was
    2. nobody has the old database open, and SQLite folds its log into it: SQLite's own crash
       safety holds, the old database is whole, now without a log
    3. side files that are left hold nothing (or belong to a file SQLite cannot read) and move
       into the partial directory: the old file is as whole as before
    4. the note of an earlier restore goes
    5. rename, the commit point; then the directory is synced: the new database stands alone. If
       that sync fails, so does the restore, though the new database is there: a power cut may
       bring the old one back
    6. the note of this restore is written; without it a replicator cannot say what happened, but
       the restore is done
    7. the partial directory goes

So no ``-wal`` of the old database ever lies beside the new one. Refuses to replace anything
without being told to, and anything that is in use.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from replicator.errors import LocalIOError, TargetExists
from replicator.recovery.partial import Partial
from replicator.sqlite.check import checkpoint_wal, in_use, openers
from replicator.system.files import Files
from replicator.system.paths import side_files
from replicator.system.restore_marker import remove_restore_marker, write_restore_marker

log = logging.getLogger(__name__)


def check_output(output: Path, *, overwrite: bool) -> None:
    """Refuse at once what :func:`publish` would refuse at the end."""
    if output.is_dir():
        raise TargetExists(f"{output} is a directory")
    if os.path.lexists(output):
        if not overwrite:
            raise TargetExists(
                f"{output} exists", hint="restore with --overwrite, or to another path"
            )
        _refuse_openers(output)
    elif not overwrite and (beside := side_files(output)):
        raise TargetExists(
            f"{beside[0]} lies where the database would go; it may hold transactions",
            hint="bring its database back or move it away; --overwrite discards it",
        )


def _refuse_openers(output: Path) -> None:
    pids = openers(output)
    if pids:
        raise in_use(output, f"process {pids[0]}")


def publish(
    partial: Partial, output: Path, note: dict[str, object], *, overwrite: bool, files: Files
) -> None:
    """Steps 2 to 7. ``note`` tells a replicator where in the log the file stands."""
    check_output(output, overwrite=overwrite)
    if files.exists(output):
        files.copy_mode(output, partial.database)
        checkpoint_wal(output)
    for side in side_files(output):
        files.rename(side, partial.directory / f"replaced{side.name.removeprefix(output.name)}")
    files.sync_directory(output.parent)
    remove_restore_marker(output, files)
    files.rename(partial.database, output)
    try:
        write_restore_marker(output, note, files)
    except LocalIOError as error:
        log.warning("%s; so a replicator cannot tell that the database was restored", error)
    partial.remove()
