"""Keeps a SQLite database safe in S3, continuously, and rebuilds it to any transaction.

Everything public is named here, and loaded on first use, so that ``import replicator`` and
``replicator --help`` cost milliseconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from replicator._version import __version__

if TYPE_CHECKING:
    from replicator.app.durable import durable, wait_durable
    from replicator.config.settings import SqliteReplicatorConfig
    from replicator.errors import ReplicatorError
    from replicator.handle.handle import SqliteReplicator
    from replicator.model import Position, ReplicationStatus, RestoreReport
    from replicator.recovery.api import restore  # arguments and types of the two are those
    from replicator.recovery.restore_all import restore_all

__all__ = [
    "Position",
    "ReplicationStatus",
    "ReplicatorError",
    "RestoreReport",
    "SqliteReplicator",
    "SqliteReplicatorConfig",
    "__version__",
    "durable",
    "restore",
    "restore_all",
    "wait_durable",
]

_LAZY = {
    "Position": "replicator.model",
    "ReplicationStatus": "replicator.model",
    "ReplicatorError": "replicator.errors",
    "RestoreReport": "replicator.model",
    "SqliteReplicator": "replicator.handle.handle",
    "SqliteReplicatorConfig": "replicator.config.settings",
    "durable": "replicator.app.durable",
    "restore": "replicator.handle.restoring",
    "restore_all": "replicator.handle.restoring",
    "wait_durable": "replicator.app.durable",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value
