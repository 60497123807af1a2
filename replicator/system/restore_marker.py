"""The restore marker: a restore leaves it for the replicator that starts on the database next.

The marker explains and proves nothing: a replicator compares the database itself with the archive.
Owns the marker's content; :mod:`.paths` names its file.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

from replicator.errors import LocalIOError, UnsafePath
from replicator.system.directory import Directory, hold_directory
from replicator.system.files import LOCAL, Files
from replicator.system.paths import MARKER, cache_directory, restore_marker_path


def write_restore_marker(
    place: Directory, database: str, content: Mapping[str, object], files: Files
) -> None:
    """Write the marker of the database with the name ``database`` in ``place``, durably.

    The marker's directory may be another user's: a restore by root may precede a replicator of
    the application's user.
    """
    path = place.entry(cache_directory(Path(database)).name)
    if not files.exists(path):
        files.mkdir(path)
    with hold_directory(path, files) as directory:
        files.write_atomic(directory.entry(MARKER), json.dumps(dict(content)).encode())


def remove_restore_marker(place: Directory, database: str, files: Files) -> None:
    """Remove the marker, if there is one. No replicator reads it behind another user's link."""
    path = place.entry(cache_directory(Path(database)).name)
    if files.exists(path):
        with contextlib.suppress(UnsafePath), hold_directory(path, files) as directory:
            files.unlink(directory.entry(MARKER), missing_ok=True)


def restored_txid(database: Path) -> int | None:
    """The txid that the database was restored to; None if there is no valid marker."""
    try:
        return int(json.loads(LOCAL.read(restore_marker_path(database)))["txid"])
    except (LocalIOError, KeyError, TypeError, ValueError):
        return None
