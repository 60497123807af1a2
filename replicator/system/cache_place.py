"""The default cache of a database whose path led to another file before.

After a link on the path was switched, a sidecar follows the new file and keeps its cache next to
the old one. A note in the new file's own cache directory names it, so that a restart and commands,
which resolve the path anew, find the cache with the record of the archive.

Owns: the note. Refuses: a note of another user, and one that leads to no cache.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from replicator.system.paths import cache_directory

if TYPE_CHECKING:  # settings need no numpy
    from replicator.system.directory import Directory

NOTE = "cache.json"
LONGEST = 1 << 16  # bytes
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def cache_of(database: Path) -> Path:
    """The default cache directory of a resolved database."""
    default = cache_directory(database)
    noted = _noted(default / NOTE)
    return noted if noted is not None and (noted / "state.db").is_file() else default


def note_cache(held: Directory, cache: Path) -> None:
    """Note in a database's own cache directory that ``cache`` is in use. ``LocalIOError``."""
    held.files.write_atomic(held.entry(NOTE), json.dumps({"cache": str(cache)}).encode())


def _noted(path: Path) -> Path | None:
    try:
        fd = os.open(path, _FLAGS)
    except (OSError, ValueError):
        return None
    try:
        from replicator.system.directory import trusted_users

        if os.fstat(fd).st_uid not in trusted_users():
            return None
        noted = Path(json.loads(os.read(fd, LONGEST))["cache"])
        return noted if noted.is_absolute() else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    finally:
        os.close(fd)
