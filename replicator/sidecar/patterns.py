"""Restores the databases that only the bucket names: those below a pattern, on a new machine.

Owns: which of them are wanted. Refuses: a name in the bucket that the pattern does not name, and
a database that was removed on this machine, as its cache shows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from replicator.archive.listing import find_databases
from replicator.archive.locate import open_bucket
from replicator.config.file import ConfigFile, Entry
from replicator.config.patterns import Pattern
from replicator.config.settings import SqliteReplicatorConfig
from replicator.engine.shared import SharedResources
from replicator.errors import ReplicatorError
from replicator.recovery.start import Act, Archive, Asked, Command, Local, decide_start, log_line
from replicator.replicator import SqliteReplicator
from replicator.sidecar.member import log_restore
from replicator.store.retry import RESTORE_RETRIES

EXAMPLE = "any"  # a name, to learn the prefix above it

log = logging.getLogger(__name__)


def restore_patterns(
    file: ConfigFile, shared: SharedResources, *, around_command: bool, threads: int
) -> set[Path]:
    """The databases that were restored: for a command, all that are missing, else those with the
    setting ``auto_restore``. Errors are raised around a command, and logged otherwise."""

    def restore(config: SqliteReplicatorConfig) -> bool:
        try:
            return _restore(config, shared)
        except ReplicatorError as error:
            if around_command:
                raise
            log.error("%s could not be restored: %s", config.database, error)
            return False

    wanted: dict[Path, SqliteReplicatorConfig] = {}
    for entry in file.entries:
        if entry.pattern is None:
            continue
        try:
            for config in _missing(file, entry, entry.pattern, around_command=around_command):
                wanted.setdefault(config.database, config)
        except ReplicatorError as error:
            if around_command:
                raise
            log.error("%s: the bucket could not be searched: %s", entry.name, error)
    with ThreadPoolExecutor(threads, "replicator-restore") as pool:
        done = list(pool.map(restore, wanted.values()))
    return {path for path, was in zip(wanted, done, strict=True) if was}


def _missing(
    file: ConfigFile, entry: Entry, pattern: Pattern, *, around_command: bool
) -> Iterator[SqliteReplicatorConfig]:
    """The databases that the bucket holds, that the entry names, and that are not here."""
    example = file.config(entry, Path(pattern.fixed) / EXAMPLE, EXAMPLE)
    if not (around_command or example.auto_restore):
        return
    parent = example.address.prefix.removesuffix(EXAMPLE)
    with open_bucket(example.address, RESTORE_RETRIES) as store:
        prefixes = find_databases(store, parent.rstrip("/"))
    for prefix in prefixes:
        name = prefix.removeprefix(parent)
        if prefix.startswith(parent) and pattern.names(name):
            config = file.config(entry, Path(pattern.fixed) / name, name)
            if not config.database.exists():
                yield config


def _restore(config: SqliteReplicatorConfig, shared: SharedResources) -> bool:
    """Restore one database; False if it was removed here."""
    if (config.cache / "state.db").exists():
        asked, local = Asked(Command.PATTERN), Local.REMOVED
        outcome = decide_start(local, Archive.HISTORY, asked)
        log.info("%s: %s", config.database, log_line(local, Archive.HISTORY, asked, outcome))
        if outcome.act is Act.SKIP:
            return False
    replicator = SqliteReplicator(config, shared=shared)
    try:
        report = replicator.prepare(Command.PATTERN)
    finally:
        replicator.stop()
    if report is not None:
        log_restore(report)
    return report is not None
