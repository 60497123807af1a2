"""The state of the replication of a database, asked of its sidecar from any process.

Owns: one request for the status. Refuses: to start a sidecar, and to open the database.
"""

from __future__ import annotations

import os

from replicator.config.settings import SqliteReplicatorConfig
from replicator.model import ReplicationStatus
from replicator.sidecar.control_client import ask

__all__ = ["status_of"]


def status_of(
    database: str | os.PathLike[str], *, cache_dir: str | os.PathLike[str] | None = None
) -> ReplicationStatus:
    """The status of the sidecar that replicates ``database``, whichever process started it.

    ``cache_dir`` is its cache directory if that is not the default. Waits 10 s at most for a
    sidecar that hangs. Raises ``NotRunning`` if none answers.

    >>> with SqliteReplicator(config):
    ...     status_of("app.db").running
    True
    """
    # the request needs the cache directory only, and that does not depend on the store
    config = SqliteReplicatorConfig(db_path=database, cache_dir=cache_dir, url="file:///")
    return ReplicationStatus(**ask(config.cache, {"command": "status"}))
