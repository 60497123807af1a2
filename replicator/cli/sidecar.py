"""How a command reaches the sidecar of a database: by the socket in its cache directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def ask(db: Path, cache_dir: Path | None, request: dict[str, Any]) -> dict[str, Any]:
    """The sidecar's answer to one request; the library's errors otherwise."""
    from replicator.config import SqliteReplicatorConfig
    from replicator.daemon import ask as ask_daemon

    # only the place of the cache is of interest, and it does not depend on the store
    config = SqliteReplicatorConfig(db_path=db, cache_dir=cache_dir, url="file:///")
    return ask_daemon(config.cache, request)
