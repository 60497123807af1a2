"""A copy of a restore point, shared by the processes of an application, and made anew with age.

The copy has its name only once it is complete and checked, and a new one takes the name by a
rename: who reads the old one continues to read it.

Owns: the copy, and the order of the processes that want one. Refuses: to touch the database.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path

from replicator.config.settings import SqliteReplicatorConfig
from replicator.errors import NoBackup
from replicator.handle.restoring import restore
from replicator.system.locks import DirLock

WORDS = {"yesterday": "24 hours ago"}


def restored_copy(
    config: SqliteReplicatorConfig,
    at: str,
    *,
    max_age: float | None,
    directory: str | os.PathLike[str] | None = None,
) -> Path:
    """The path of the database of ``config`` as it was ``at`` a time, a transaction or a mark.

    A copy that is younger than ``max_age`` seconds, None: of any age, is used again. One process
    restores, the others wait for it. ``directory`` is by default ``.{name}-restored`` next to the
    database; only this user can read it. ``NoBackup``, and the errors of a restore.
    """
    default = config.database.with_name(f".{config.database.name}-restored")
    place = Path(default if directory is None else directory).absolute()
    digest = hashlib.sha256(f"{config.address.url}\0{at}".encode()).hexdigest()[:16]
    path = place / f"{digest}.db"
    if not _is_fresh(path, max_age):
        os.makedirs(place, mode=0o700, exist_ok=True)
        lock = DirLock(place)
        lock.acquire(wait=True)
        try:
            if not _is_fresh(path, max_age):
                _restore(config, WORDS.get(at, at), path)
        finally:
            lock.release()
    return path


def _is_fresh(path: Path, max_age: float | None) -> bool:
    try:
        age = time.time() - path.stat().st_mtime
    except OSError:
        return False
    return max_age is None or age < max_age


def _restore(config: SqliteReplicatorConfig, at: str, path: Path) -> None:
    new = path.with_suffix(".new")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)  # of a process that ended between the two steps
    if restore(address=config.address, output=new, at=at) is None:
        raise NoBackup(
            f"{config.address.url} has no backup", hint="list the bucket with replicator history"
        )
    os.utime(new)  # its age counts from now
    os.replace(new, path)
