"""Replaces an open database by an earlier state of its own archive.

Owns the order of the steps. Refuses to begin without a replicator, and to replace a file before
every commit in it is in the bucket.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.errors import ConfigError, NoBackup

if TYPE_CHECKING:
    from replicator.app.connections import Connections
    from replicator.app.database import Database
    from replicator.model import RestoreReport


def replace_by(
    database: Database, connections: Connections, at: str, timeout: float
) -> RestoreReport:
    """See :meth:`Database.restore`."""
    replicator = database.replicator
    if replicator is None:
        raise ConfigError(
            f"{database.path} has no replicator, hence no earlier states",
            setting="config",
            code="not_replicated",
            hint="open it with a config",
        )
    database.queue.drain(timeout)
    connections.close(timeout)
    try:
        replicator.flush(timeout)
        replicator.stop()
        try:
            report = replicator.restore(at=at, overwrite=True)
        finally:
            replicator.start()
    finally:
        connections.reopen()
    if report is None:
        raise NoBackup(f"{replicator.config.address.url} has no backup")
    return report
