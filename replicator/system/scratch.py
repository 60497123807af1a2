"""A directory for a while: made for one piece of work, gone afterwards."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from replicator.system.files import Files, about


@contextlib.contextmanager
def scratch_directory(parent: Path | None, files: Files | None = None) -> Iterator[Path]:
    """A new directory in ``parent`` (default: the system's temporary directory)."""
    place = parent or Path(tempfile.gettempdir())
    directory = place / f"replicator-{secrets.token_hex(8)}"
    with about(place):
        (files or Files()).system(os.mkdir, directory, 0o700)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
