"""A temporary directory for one piece of work.

Owns its creation and its removal. Refuses to know its content, and a parent in which another user
could put a directory of his own in its place.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from replicator.system.directory import require_own_parent
from replicator.system.files import LOCAL, Files, about

_in_use: set[Path] = set()


def discard_all() -> None:
    """Remove every temporary directory of this process, whose work will not end."""
    for directory in tuple(_in_use):
        discard(directory)


def discard(directory: Path) -> None:
    """Remove a directory with its content, as far as that is possible."""
    shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def scratch_directory(parent: Path | None, files: Files = LOCAL) -> Iterator[Path]:
    """A new directory in ``parent`` (default: the system's temporary directory), removed at the
    end of the block. ``UnsafePath`` if another user controls ``parent``."""
    parent = parent or Path(tempfile.gettempdir())
    require_own_parent(parent)
    directory = parent / f"replicator-{secrets.token_hex(8)}"
    with about(parent):
        files.system(os.mkdir, directory, 0o700)
    _in_use.add(directory)
    try:
        yield directory
    finally:
        discard(directory)
        _in_use.discard(directory)
