"""The directory of a database's cache, when root works in it: taken at the start, given back after.

Root makes files that the user of the application could not use, so a first run by root would lock
him out. At the end root gives the directory to the owner of the database, with all that is in it;
at the next start root takes it back. He owns the database, so he may change what its cache holds,
but a link of his leads root nowhere: while root works there, no other user can change a name in it.

Owns: both changes of the owner, by descriptor. Refuses: a directory of another user than the owner
of the database, and links, also hard ones, in it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from replicator.errors import LocalIOError, UnsafePath
from replicator.system.directory import Directory, hold_directory
from replicator.system.files import LOCAL, Files, about

log = logging.getLogger(__name__)


def take_back(path: Path, database: Path, files: Files = LOCAL) -> bool:
    """Make root the owner of a directory that was given to the owner of the database; True if it
    was. ``UnsafePath`` if it holds what the replicator does not make."""
    owner = _owner_of(database)
    if owner is None or not _is_directory_of(path, owner[0]):
        return False
    with hold_directory(path, files) as held:
        if os.fstat(held.fd).st_uid != owner[0]:
            return False
        for place in _tree(held):
            _check(place, owner[0])
        for place in _tree(held, top=(0, 0)):  # no other user can change a name from here on
            try:
                _check(place, owner[0])
            except UnsafePath:
                os.fchown(held.fd, *owner)
                raise
            _change(place, 0, 0)
    return True


def give_away(held: Directory, database: Path) -> None:
    """Give a directory of root, with its files, to the owner of the database. A file system that
    refuses is reported in the log."""
    owner = _owner_of(database)
    if owner is None:
        return
    try:
        if os.fstat(held.fd).st_uid:
            return
        for place in _tree(held):
            _check(place, 0)
            _change(place, *owner)
        os.fchown(held.fd, *owner)
    except (OSError, LocalIOError) as error:
        log.warning("%s could not be given to the owner of the database: %s", held.path, error)


def _owner_of(database: Path) -> tuple[int, int] | None:
    """Owner and group of the database, if root works for another user."""
    if os.geteuid():
        return None
    with contextlib.suppress(OSError):
        facts = os.stat(database)
        return (facts.st_uid, facts.st_gid) if facts.st_uid else None
    return None


def _is_directory_of(path: Path, uid: int) -> bool:
    with contextlib.suppress(OSError):
        facts = os.lstat(path)
        return stat.S_ISDIR(facts.st_mode) and facts.st_uid == uid
    return False


Place = tuple[Directory, str]  # a name in a directory that is open


def _tree(held: Directory, top: tuple[int, int] | None = None) -> Iterator[Place]:
    """Every name below a directory, that of a directory after those in it. ``top`` becomes the
    owner of each directory before its names are read."""
    if top is not None:
        os.fchown(held.fd, *top)
    for name in held.names():
        if stat.S_ISDIR(_facts(held, name).st_mode):
            with hold_directory(held.entry(name), held.files) as below:
                yield from _tree(below, top)
        yield held, name


def _facts(held: Directory, name: str) -> os.stat_result:
    with about(held.path / name):
        return os.stat(name, dir_fd=held.fd, follow_symlinks=False)


def _check(place: Place, owner: int) -> None:
    """``UnsafePath`` unless the name is of a file, directory or socket of ``owner`` or root, which
    has no other name."""
    held, name = place
    facts = _facts(held, name)
    link = stat.S_ISLNK(facts.st_mode)
    linked = not stat.S_ISDIR(facts.st_mode) and facts.st_nlink != 1
    if link or linked or facts.st_uid not in (0, owner):
        raise UnsafePath(
            f"{held.path / name} is a link, or of another user, in the directory of a cache",
            path=held.path / name,
            errno=errno.EPERM,
            owner=facts.st_uid,
            hint=f"move {held.path / name} away",
        )


def _change(place: Place, uid: int, gid: int) -> None:
    held, name = place
    with about(held.path / name):
        os.chown(name, uid, gid, dir_fd=held.fd, follow_symlinks=False)
