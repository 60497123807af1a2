"""The note that a restore leaves beside a database, for the replicator that follows it next.

It explains and proves nothing: a replicator compares the database itself with the log. Owns the
note's place, in the default cache directory, and its form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from replicator.system.files import Files


def note_path(database: Path) -> Path:
    return database.with_name(f".{database.name}-replicator") / "restored.json"


def leave_note(database: Path, note: Mapping[str, object], files: Files) -> None:
    """Durably."""
    path = note_path(database)
    files.mkdir(path.parent)
    files.write_atomic(path, json.dumps(dict(note)).encode())


def remove_note(database: Path, files: Files) -> None:
    files.unlink(note_path(database), missing_ok=True)


def restored_txid(database: Path) -> int | None:
    """The txid that the database was restored to; None when there is no note (any more)."""
    try:
        return int(json.loads(note_path(database).read_bytes())["txid"])
    except (OSError, KeyError, TypeError, ValueError):
        return None
