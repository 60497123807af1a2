"""Names of the files around a database.

Owns the rules for them. Refuses to open or change any file.
"""

from __future__ import annotations

import os
from pathlib import Path

MARKER = "restored.json"
SIDE_SUFFIXES = ("-wal", "-shm", "-journal")


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with the home directory in place of ``~``; unchanged if that user is unknown."""
    return Path(os.path.expanduser(path))


def resolved(path: str | os.PathLike[str]) -> Path:
    """The absolute path behind symbolic links, as far as they lead; a loop is left as it is."""
    return Path(os.path.realpath(path))


def wal_path(database: Path) -> Path:
    """The WAL of a database; SQLite names it after the real file, not after a symbolic link."""
    return database.with_name(f"{database.name}-wal")


def index_path(database: Path) -> Path:
    """The shared memory of a database's connections, see :func:`wal_path`."""
    return database.with_name(f"{database.name}-shm")


def side_files(database: Path) -> list[Path]:
    """The ``-wal``, ``-shm`` and ``-journal`` files of a database that exist."""
    paths = [database.with_name(database.name + suffix) for suffix in SIDE_SUFFIXES]
    return [path for path in paths if os.path.lexists(path)]


def cache_directory(database: Path) -> Path:
    """The default cache directory, in the database's own directory."""
    return database.with_name(f".{database.name}-replicator")


def restore_marker_path(database: Path) -> Path:
    """The marker that a restore leaves in the default cache directory."""
    return cache_directory(database) / MARKER
