"""A restore point as a temporary, read-only file, for a command to look at.

Owns the file, which it removes afterwards, and the process of the command. Refuses to interpret
the command.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from replicator.archive.locate import no_backup, open_archive, url_of
from replicator.archive.point import RestorePoint
from replicator.errors import ConfigError
from replicator.model import RestoreReport
from replicator.recovery.api import restore
from replicator.recovery.progress import Progress
from replicator.store.address import StoreAddress
from replicator.store.base import Store
from replicator.system.child import wait_for
from replicator.system.scratch import scratch_directory

VARIABLE = "REPLICATOR_DATABASE"  # holds the path for the command
PLACEHOLDER = "{}"
READ_ONLY = 0o400

Listener = Callable[[Progress], None]


def restore_point(
    store: Store, prefix: str, when: RestorePoint, output: Path, progress: Listener | None = None
) -> RestoreReport:
    """Restore it to ``output`` and make that read-only. ``NoBackup`` if there is nothing."""
    report = restore(
        store=store,
        prefix=prefix,
        output=output,
        txid=when.txid,
        timestamp=when.timestamp,
        at=when.name or None,
        progress=progress,
    )
    if report is None:
        raise no_backup(url_of(store, prefix))
    output.chmod(READ_ONLY)
    return report


@contextlib.contextmanager
def opened_point(
    address: StoreAddress,
    when: RestorePoint,
    *,
    scratch: Path | None = None,
    progress: Listener | None = None,
) -> Iterator[tuple[Path, RestoreReport]]:
    """A restore point of the database an address names as a read-only file, for a while."""
    with scratch_directory(scratch) as directory:
        with open_archive(address) as (store, prefix):
            path = directory / file_name(prefix)
            report = restore_point(store, prefix, when, path, progress)
        yield path, report


def file_name(prefix: str) -> str:
    """The last part of a prefix, which may come from the bucket, unless that is no file name."""
    name = prefix.rpartition("/")[2]
    return "database" if name in ("", ".", "..") else name


def shell() -> list[str]:
    """A SQLite shell that is there: ``sqlite3``, else Python's own; ``ConfigError``."""
    if found := shutil.which("sqlite3"):
        return [found, "-readonly"]
    if sys.version_info >= (3, 12):
        return [sys.executable, "-m", "sqlite3"]
    raise ConfigError(
        "there is no sqlite3 shell here",
        hint="install sqlite3, or name a command: replicator open … -- CMD {}",
    )


def run_on(path: Path, command: Sequence[str]) -> int:
    """Run a command on the file; its exit code, 128 + N if signal N ended it.

    The path replaces ``{}`` in the arguments, or follows the last one, and is in the
    environment as REPLICATOR_DATABASE.
    """
    words = _with_path(list(command), path)
    try:
        child = subprocess.Popen(words, env={**os.environ, VARIABLE: str(path)})
    except OSError as error:
        raise ConfigError(f"cannot run {words[0]}: {(error.strerror or '').lower()}") from error
    with _signals_for(child):
        code = wait_for(child)
    return 128 - code if code < 0 else code


def _with_path(words: list[str], path: Path) -> list[str]:
    if any(PLACEHOLDER in word for word in words):
        return [word.replace(PLACEHOLDER, str(path)) for word in words]
    return [*words, str(path)]


@contextlib.contextmanager
def _signals_for(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """A terminal sends its signals to the command too; the others are passed to it. So the file
    outlives neither."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _: FrameType | None) -> None:
        if number in {signal.SIGTERM, signal.SIGHUP}:
            child.send_signal(number)

    before: dict[int, Any] = {
        number: signal.signal(number, handle)
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
