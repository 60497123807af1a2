"""Moves a database and its side files aside, so that another one can take their name.

Owns: the directory ``NAME.stale-TIME`` next to the database, and the order of the moves. Refuses:
to delete or to overwrite. The database moves first: after a crash between two moves its WAL is
left without a database, which every start reports.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from pathlib import Path

from replicator.sqlite.local_file import refuse_if_used
from replicator.sqlite.mounted import require_unmounted
from replicator.system.files import LOCAL, Files
from replicator.system.owners import Identity, Owner
from replicator.system.paths import side_files

log = logging.getLogger(__name__)


def move_aside(database: Path, files: Files = LOCAL) -> Path | None:
    """Move the files of a database that no connection uses; the directory, None if there are
    none. ``TargetExists`` if a connection has it open."""
    require_unmounted(database)
    refuse_if_used(database, files)
    moved = [path for path in (database, *side_files(database)) if os.path.lexists(path)]
    if not moved:
        return None
    directory = _directory(database, files)
    for path in moved:
        files.rename(path, directory / path.name)
    files.sync_directory(database.parent)
    log.warning("%s was moved aside, into %s", database, directory)
    return directory


def _directory(database: Path, files: Files) -> Path:
    """A new directory, with the owner and the mode of the database's directory."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    names = (f"{database.name}.stale-{stamp}{suffix}" for suffix in _suffixes())
    directory = next(path for path in map(database.with_name, names) if not os.path.lexists(path))
    files.mkdir(directory)
    above = Owner.of(database.parent)
    made = Identity.current().makes_like(above, above)
    files.set_owner(directory, made.uid, made.gid, made.mode)
    return directory


def _suffixes() -> itertools.chain[str]:
    return itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
