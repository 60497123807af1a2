"""The restore marker: a restore leaves it for the replicator that starts on the database next.

It names the restored file by device and inode, and the state that the file had. So a replicator
can prove that a database that was written since follows that state. Without a marker it compares
the database itself with the archive. Owns the marker's content; :mod:`.paths` names its file.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from replicator.errors import LocalIOError, UnsafePath
from replicator.model import DatabaseState
from replicator.system.directory import Directory, hold_directory
from replicator.system.files import LOCAL, Files, HeldName
from replicator.system.paths import MARKER, cache_directory, restore_marker_path


@dataclass(frozen=True, slots=True)
class RestoreMarker:
    """The restored state, of ``txid`` in ``generation``, "" if unknown. ``file`` is (device, inode)
    of the restored file, (0, 0) if unknown; ``change_counter`` is that of its header."""

    txid: int
    state: DatabaseState
    file: tuple[int, int]
    change_counter: int
    generation: str = ""

    def names(self, file: tuple[int, int] | None, change_counter: int) -> bool:
        """True if the file is the restored one: SQLite never lowers the counter of a file, so a
        new file that got the number of a removed one has a smaller counter."""
        return file == self.file and change_counter >= self.change_counter


def write_restore_marker(
    place: Directory, database: str, content: Mapping[str, object], files: Files
) -> None:
    """Write the marker of the database with the name ``database`` in ``place``, durably.

    The marker's directory may be another user's: a restore by root may precede a replicator of
    the application's user.
    """
    path = place.entry(cache_directory(Path(database)).name)
    made = not files.exists(path)
    if made:
        files.mkdir(path)
    with hold_directory(path, files) as directory:
        files.write_atomic(directory.entry(MARKER), json.dumps(dict(content)).encode())
        if made and not os.geteuid():  # otherwise the owner of the database could not start
            _give_away(path, directory, os.stat(database, dir_fd=place.fd), files)


def _give_away(path: HeldName, directory: Directory, owner: os.stat_result, files: Files) -> None:
    if owner.st_uid:
        files.set_owner(directory.entry(MARKER), owner.st_uid, owner.st_gid, 0o600)
        files.set_owner(path, owner.st_uid, owner.st_gid, 0o700)


def remove_restore_marker(place: Directory, database: str, files: Files) -> None:
    """Remove the marker, if there is one. No replicator reads it behind another user's link."""
    path = place.entry(cache_directory(Path(database)).name)
    if files.exists(path):
        with contextlib.suppress(UnsafePath), hold_directory(path, files) as directory:
            files.unlink(directory.entry(MARKER), missing_ok=True)


def read_restore_marker(database: Path) -> RestoreMarker | None:
    """The marker of a database; None if there is no valid one."""
    try:
        content = json.loads(LOCAL.read(restore_marker_path(database)))
        state = DatabaseState(int(content["pages"]), int(content["checksum"], 16))
        file, changes = content.get("file") or (0, 0), int(content.get("change_counter", 0))
        place = int(file[0]), int(file[1])
        return RestoreMarker(
            int(content["txid"]), state, place, changes, str(content.get("generation", ""))
        )
    except (LocalIOError, AttributeError, LookupError, TypeError, ValueError):
        return None
