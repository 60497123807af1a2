"""Restores the databases that only the bucket names: those below a pattern, on a new machine.

Owns: which of them are wanted. Refuses: a name in the bucket that the pattern does not name, and
a database that was removed on this machine, as its cache shows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from replicator.archive.locate import open_bucket
from replicator.config.file import ConfigFile, Entry
from replicator.config.patterns import Pattern
from replicator.config.settings import SqliteReplicatorConfig
from replicator.engine.in_process import InProcessReplicator
from replicator.engine.shared import SharedResources
from replicator.errors import AlreadyRunning, ReplicatorError
from replicator.model import RestoreReport
from replicator.recovery.sources import example_config, named_by_pattern
from replicator.recovery.start import Act, Archive, Asked, Command, Local, decide_start, log_line
from replicator.sidecar.member import log_restore
from replicator.sidecar.standby import when_decided
from replicator.store.retry import RESTORE_RETRIES, RetryPolicy

ONE_TRY = RetryPolicy(deadline=0.0)  # a sidecar searches the bucket again later

log = logging.getLogger(__name__)


def restore_patterns(
    file: ConfigFile, shared: SharedResources, *, around_command: bool, threads: int
) -> tuple[set[Path], list[ReplicatorError]]:
    """The databases that were restored: for a command, all that are missing, else those with the
    setting ``auto_restore``. With them come the errors, which are in the log, too."""
    errors: list[ReplicatorError] = []

    def restore(config: SqliteReplicatorConfig) -> bool:
        try:
            return not shared.ending.is_set() and _restore(config, shared)
        except ReplicatorError as error:
            log.error("%s could not be restored: %s", config.database, error)
            errors.append(error)
            return False

    wanted: dict[Path, SqliteReplicatorConfig] = {}
    for entry in file.entries:
        if entry.pattern is None:
            continue
        try:
            for config in _missing(file, entry, entry.pattern, around_command=around_command):
                wanted.setdefault(config.database, config)
        except ReplicatorError as error:
            log.error("%s: the bucket could not be searched: %s", entry.name, error)
            errors.append(error)
    with ThreadPoolExecutor(threads, "replicator-restore") as pool:
        done = list(pool.map(restore, wanted.values()))
    return {path for path, was in zip(wanted, done, strict=True) if was}, errors


def _missing(
    file: ConfigFile, entry: Entry, pattern: Pattern, *, around_command: bool
) -> Iterator[SqliteReplicatorConfig]:
    """The databases that the bucket holds, that the entry names, and that are not here."""
    example = example_config(file, entry, pattern)
    if not (around_command or example.auto_restore):
        return
    policy = RESTORE_RETRIES if around_command else ONE_TRY
    with open_bucket(example.address, policy) as store:
        named = list(named_by_pattern(file, entry, pattern, store))
    yield from (config for config in named if not config.database.exists())


def _restore(config: SqliteReplicatorConfig, shared: SharedResources) -> bool:
    """Restore one database; False if it was removed here."""
    if (config.cache / "state.db").exists():
        asked, local = Asked(Command.PATTERN), Local.REMOVED
        outcome = decide_start(local, Archive.HISTORY, asked)
        log.info("%s: %s", config.database, log_line(local, Archive.HISTORY, asked, outcome))
        if outcome.act is Act.SKIP:
            return False
    replicator = InProcessReplicator(config, shared=shared)
    try:
        report = _prepared(replicator)
    except AlreadyRunning:
        if not config.database.exists():
            raise
        return False  # the other process has restored it
    finally:
        replicator.stop()
    if report is not None:
        log_restore(report)
    return report is not None


def _prepared(replicator: InProcessReplicator) -> RestoreReport | None:
    if replicator.config.standby is False:
        return replicator.prepare(Command.PATTERN)
    return when_decided(lambda: replicator.prepare(Command.PATTERN))
