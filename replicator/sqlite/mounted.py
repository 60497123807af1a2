"""Refuses a database of which a single file is mounted.

SQLite finds the WAL by the name of the database. Where the file itself is mounted (a single file as
the volume of a container), the WAL of each side is in another directory, so one side never sees the
commits of the other. No check of the contents can notice that.

Owns: the refusal. Refuses: to look at the files.
"""

from __future__ import annotations

from pathlib import Path

from replicator.errors import DatabaseUnusable
from replicator.system.host import MOUNTS, file_system
from replicator.system.paths import SIDE_SUFFIXES


def require_unmounted(path: Path, mounts: Path = MOUNTS) -> None:
    """``DatabaseUnusable`` if the database, or a file next to it that SQLite uses, is a mount
    point. ``path`` is resolved; ``mounts`` is the mount table of the kernel."""
    for name in ("", *SIDE_SUFFIXES):
        file = f"{path}{name}"
        if file_system(Path(file), mounts).mount == file:
            raise DatabaseUnusable(
                f"{file} is a mount point: the WAL on the other side of the mount is another file",
                path=path,
                code="file_mounted",
                hint=f"mount the directory {path.parent} instead of single files in it",
            )
