"""The restore marker: a restore leaves it for the replicator that starts on the database next.

The marker explains and proves nothing: a replicator compares the database itself with the archive.
Owns the marker's content; :mod:`.paths` names its file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from replicator.system.files import Files
from replicator.system.paths import restore_marker_path


def write_restore_marker(database: Path, content: Mapping[str, object], files: Files) -> None:
    """Write the marker durably."""
    path = restore_marker_path(database)
    files.mkdir(path.parent)
    files.write_atomic(path, json.dumps(dict(content)).encode())


def remove_restore_marker(database: Path, files: Files) -> None:
    files.unlink(restore_marker_path(database), missing_ok=True)


def restored_txid(database: Path) -> int | None:
    """The txid that the database was restored to; None if there is no valid marker."""
    try:
        return int(json.loads(restore_marker_path(database).read_bytes())["txid"])
    except (OSError, KeyError, TypeError, ValueError):
        return None
