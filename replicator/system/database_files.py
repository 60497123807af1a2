"""Raw reads of database files, by one descriptor per inode.

Closing any descriptor of a file drops all POSIX locks of the process on it, SQLite's included
(sqlite.org, "How To Corrupt An SQLite Database File", 2.2). So a descriptor is closed only after
the file was replaced or deleted, and if it is the last one that the process has of the file. Until
then the disk space of a deleted file is not free.

Owns: the descriptors. Refuses: to close one that this process may need.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from replicator.system.files import LOCAL, Files, RawFile, StrPath, about


@dataclass(slots=True)
class _Opened:
    """``users`` counts the readers that were not released."""

    fd: int
    path: Path
    users: int = 0


_opened: dict[tuple[int, int], _Opened] = {}
_lock = threading.Lock()


def database_reader(path: StrPath, files: Files = LOCAL) -> RawFile:
    """Raw reads of a database file. Release it with :func:`release_database`.

    The open descriptor also prevents that the system reuses the inode's number.
    """
    with _lock, about(path):
        facts = files.system(os.stat, path)
        identity = facts.st_dev, facts.st_ino
        if identity not in _opened:
            identity = _open(Path(path), files)
        known = _opened[identity]
        known.users += 1
        known.path = Path(path)
        return RawFile(files, Path(path), known.fd)


def _open(path: Path, files: Files) -> tuple[int, int]:
    fd = files.system(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
    facts = os.fstat(fd)
    identity = facts.st_dev, facts.st_ino
    # The inode is known here if the path was replaced since the stat. The second descriptor
    # stays open and unused, because it must not be closed.
    _opened.setdefault(identity, _Opened(fd, path))
    return identity


def release_database(reader: RawFile, *, unless_used: bool = False) -> None:
    """The reader is not used from now on. Closes the descriptors of all files that were replaced
    or deleted, and that nothing else in this process has open; with ``unless_used`` also that of
    ``reader``, if nothing else in this process has the file open."""
    with _lock:
        released = reader.identity()
        _opened[released].users -= 1
        reader.forget()
        for identity, known in list(_opened.items()):
            gone = not _named(identity, known.path) or (unless_used and identity == released)
            if not known.users and gone and _is_last(identity):
                del _opened[identity]
                os.close(known.fd)


def _named(identity: tuple[int, int], path: Path) -> bool:
    try:
        facts = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # for example without permission: nothing is known
        return True
    return (facts.st_dev, facts.st_ino) == identity


def _is_last(identity: tuple[int, int]) -> bool:
    """True if the process has one descriptor of the file; False also if that is unknown."""
    try:
        return count_descriptors(identity) == 1
    except OSError:
        return False


def descriptors() -> Iterator[tuple[int, tuple[int, int]]]:
    """The descriptors of this process, each with the (device, inode) of its file. ``OSError``
    without ``/proc``."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # for example that of the listing itself
            facts = os.fstat(int(name))
            yield int(name), (facts.st_dev, facts.st_ino)


def count_descriptors(identity: tuple[int, int]) -> int:
    """Number of this process's descriptors of a file. ``OSError`` without ``/proc``."""
    return sum(found == identity for _, found in descriptors())
