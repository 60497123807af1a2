"""Keeps a SQLite database safe in S3, continuously, and rebuilds it to any transaction.

Everything public is named here. The heavy parts are loaded on first use, so that
``import replicator`` and ``replicator --help`` cost milliseconds.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from replicator.errors import ReplicatorError
from replicator.model import Position, ReplicationStatus, RestoreReport

if TYPE_CHECKING:
    from replicator.config import SqliteReplicatorConfig
    from replicator.replicator import SqliteReplicator
    from replicator.restore import restore

__version__ = "0.1.0"

__all__ = [
    "Position",
    "ReplicationStatus",
    "ReplicatorError",
    "RestoreReport",
    "SqliteReplicator",
    "SqliteReplicatorConfig",
    "__version__",
    "restore",
]

_LAZY = {
    "SqliteReplicator": "replicator.replicator",
    "SqliteReplicatorConfig": "replicator.config",
    "restore": "replicator.restore",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


class _Package(ModuleType):
    """Keeps ``replicator.restore`` the function whoever imported the module of that name
    first: the import system binds a submodule to its parent, and lands here."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "restore" and isinstance(value, ModuleType):
            value = value.restore
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
