"""A directory for a while: made for one piece of work, gone afterwards."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from replicator.edge.files import about


@contextlib.contextmanager
def scratch_directory(parent: Path | None) -> Iterator[Path]:
    """A new directory in ``parent`` (default: the system's temporary directory)."""
    with about(parent or tempfile.gettempdir()):
        directory = Path(tempfile.mkdtemp(prefix="replicator-", dir=parent))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
