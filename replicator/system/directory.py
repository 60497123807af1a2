"""Directories that are held by a descriptor, so that no other user can put another in their place.

Owns how a working directory (the cache, an unfinished restore, scratch) is made, opened and
checked. It refuses one that another user owns or can write to: his symbolic links would lead
this process to files of its own user, and his files would become the database. A symbolic link
in place of the directory counts only if this user or root made it. :class:`HeldName` is a name in a
held directory: every call of :class:`~replicator.system.files.Files` accepts it as a path.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from replicator.errors import LocalIOError, UnsafePath
from replicator.system.files import LOCAL, Files, HeldName, StrPath, about, located
from replicator.system.owners import user_name

WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, slots=True)
class Directory:
    """An open directory. ``path`` is its name at the time of the opening."""

    path: Path
    fd: int
    files: Files

    def entry(self, name: str) -> HeldName:
        """The name ``name`` in this directory, whatever has the directory's own name by now."""
        return HeldName(self.path, self.fd, name)

    def names(self) -> list[str]:
        with about(self.path):
            return sorted(self.files.system(os.listdir, self.fd))

    def sync(self) -> None:
        """Make its names durable."""
        self.files.sync_open_directory(self.path, self.fd)

    def is_current(self) -> bool:
        """True while the path still leads to this directory."""
        with about(self.path), contextlib.suppress(FileNotFoundError):
            return os.path.samestat(
                os.fstat(self.fd), self.files.system(os.stat, self.path, follow_symlinks=True)
            )
        return False

    def require_trusted(self) -> None:
        """``UnsafePath`` if another user owns anything in the directory."""
        for name in self.names():
            with about(self.path / name):
                facts = os.stat(name, dir_fd=self.fd, follow_symlinks=False)
            if not self._is_ours(facts.st_uid):
                raise _foreign(self.path / name, facts)

    def require_private(self) -> None:
        """``UnsafePath`` if another user owns the directory or can write to it. A directory of
        this user is closed to the others' writing."""
        with about(self.path):
            facts = os.fstat(self.fd)
            if not self._is_ours(facts.st_uid):
                raise _foreign(self.path, facts)
            if not facts.st_mode & WRITABLE_BY_OTHERS:
                return
            if facts.st_uid != os.geteuid():
                raise _writable(self.path, facts)
            self.files.system(os.fchmod, self.fd, stat.S_IMODE(facts.st_mode) & ~WRITABLE_BY_OTHERS)
        log.info("%s: other users could write to it; its mode was changed", self.path)

    def require_own_names(self) -> None:
        """``UnsafePath`` if another user can rename or remove what this process makes here."""
        with about(self.path):
            facts = os.fstat(self.fd)
        if not self._is_ours(facts.st_uid):
            raise _foreign(self.path, facts)
        if facts.st_mode & WRITABLE_BY_OTHERS and not facts.st_mode & stat.S_ISVTX:
            raise _writable(self.path, facts)

    def _is_ours(self, uid: int) -> bool:
        return uid in trusted_users() or uid == self._owner_of_new_files()

    def _owner_of_new_files(self) -> int:
        """The owner that this file system gives to a file of this process. On some network mounts
        that is a user of the server."""
        name = f".owner-{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, 0o600, dir_fd=self.fd)
        except OSError:
            return -1
        try:
            return os.fstat(fd).st_uid
        finally:
            os.close(fd)
            os.unlink(name, dir_fd=self.fd)

    def close(self) -> None:
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def trusted_users() -> frozenset[int]:
    """Users whose files this process trusts: its own and root."""
    return frozenset({os.geteuid(), 0})


def hold_directory(path: StrPath, files: Files = LOCAL) -> Directory:
    """Open an existing directory of any owner. ``UnsafePath`` if the last name of ``path`` is a
    symbolic link of another user."""
    name, at = located(path)
    with about(path):
        link = _link(path)
        if link is not None:
            if link.st_uid not in trusted_users():
                raise _foreign(Path(path), link)
            name, at = os.path.realpath(path), {}
        try:
            fd = files.system(os.open, name, _FLAGS, **at)
        except PermissionError as error:
            raise _denied(Path(path), os.stat(name, **at)) from error
    return Directory(Path(path), fd, files)


def working_directory(path: StrPath, files: Files = LOCAL) -> Directory:
    """Open a directory that this process works in, and make it, with its missing parents, if it
    is missing. ``UnsafePath`` unless only this user and root can write to it."""
    if _link(path) is None:
        files.mkdir(path)
    directory = hold_directory(path, files)
    try:
        directory.require_private()
    except BaseException:
        directory.close()
        raise
    return directory


def _link(path: StrPath) -> os.stat_result | None:
    """The facts of ``path`` if it is a symbolic link."""
    name, at = located(path)
    with about(path), contextlib.suppress(FileNotFoundError):
        found = os.stat(name, follow_symlinks=False, **at)
        return found if stat.S_ISLNK(found.st_mode) else None
    return None


def require_own_parent(parent: Path) -> None:
    """``UnsafePath`` if another user can rename what this process makes in ``parent``."""
    with hold_directory(parent) as held:
        held.require_own_names()


def refuse_links(*paths: StrPath) -> None:
    """``UnsafePath`` if one of ``paths`` is a symbolic link of another user."""
    for path in paths:
        link = _link(path)
        if link is not None and link.st_uid not in trusted_users():
            raise _foreign(Path(path), link)


def _denied(path: Path, facts: os.stat_result) -> LocalIOError:
    owner, user = user_name(facts.st_uid), user_name(os.geteuid())
    return LocalIOError(
        f"{path} belongs to user {owner}: user {user} may not open it",
        path=path,
        errno=errno.EACCES,
        hint=f"run this as user {owner}, or give it away: chown -R {os.geteuid()} {path}",
    )


def _foreign(path: Path, facts: os.stat_result) -> UnsafePath:
    kind = "symbolic link" if stat.S_ISLNK(facts.st_mode) else "file"
    kind = "directory" if stat.S_ISDIR(facts.st_mode) else kind
    owner, user = user_name(facts.st_uid), user_name(os.geteuid())
    return UnsafePath(
        f"{path} is a {kind} of user {owner}, who could lead user {user} astray with it",
        path=path,
        errno=errno.EPERM,
        owner=facts.st_uid,
        hint=f"run this as user {owner}, or move {path} away",
    )


def _writable(path: Path, facts: os.stat_result) -> UnsafePath:
    mode = stat.S_IMODE(facts.st_mode)
    return UnsafePath(
        f"{path} has mode {mode:04o}: other users can write to it",
        path=path,
        errno=errno.EPERM,
        owner=facts.st_uid,
        hint=f"take that permission away (chmod go-w {path}), or name a new directory in it",
    )
