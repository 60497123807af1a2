"""The side of the application: commits that are durable when they return, one queue of writers.

    from replicator.app import Database

    with Database.open("app.db") as db:
        db.execute("INSERT INTO users (name) VALUES (?)", ("Ada",))
        names = db.fetch_all("SELECT name FROM users")

Owns the names that an application uses. The parts are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from replicator.app.async_database import AsyncDatabase
    from replicator.app.database import Database
    from replicator.app.hooks import (
        LogOperations,
        Operation,
        OperationHook,
        OperationOutcome,
        RefuseWrites,
        SlowOperations,
    )
    from replicator.app.migration import Migration
    from replicator.app.pending import QueueLimits
    from replicator.app.presets import DEFAULT, MINIMAL, PRODUCTION, Preset
    from replicator.app.statements import Written
    from replicator.app.statistics import DatabaseStatistics
    from replicator.app.wal import WalChange, WalThresholds

_LAZY = {
    "AsyncDatabase": "replicator.app.async_database",
    "DEFAULT": "replicator.app.presets",
    "Database": "replicator.app.database",
    "DatabaseStatistics": "replicator.app.statistics",
    "LogOperations": "replicator.app.hooks",
    "MINIMAL": "replicator.app.presets",
    "Migration": "replicator.app.migration",
    "Operation": "replicator.app.hooks",
    "OperationHook": "replicator.app.hooks",
    "OperationOutcome": "replicator.app.hooks",
    "PRODUCTION": "replicator.app.presets",
    "Preset": "replicator.app.presets",
    "QueueLimits": "replicator.app.pending",
    "RefuseWrites": "replicator.app.hooks",
    "SlowOperations": "replicator.app.hooks",
    "WalChange": "replicator.app.wal",
    "WalThresholds": "replicator.app.wal",
    "Written": "replicator.app.statements",
}

__all__ = [
    "DEFAULT",
    "MINIMAL",
    "PRODUCTION",
    "AsyncDatabase",
    "Database",
    "DatabaseStatistics",
    "LogOperations",
    "Migration",
    "Operation",
    "OperationHook",
    "OperationOutcome",
    "Preset",
    "QueueLimits",
    "RefuseWrites",
    "SlowOperations",
    "WalChange",
    "WalThresholds",
    "Written",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value
