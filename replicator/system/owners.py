"""Owners, groups and modes of files: who can use a file, and who would be locked out.

Owns: the rule for the files that the replicator makes next to those of an application. Refuses to
change a file; :mod:`.files` does that.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from dataclasses import dataclass
from typing import Self

from replicator.system.files import StrPath

READ_WRITE = 0o6


@dataclass(frozen=True, slots=True)
class Owner:
    """User and group (ids) of a file, and its permissions without its type."""

    uid: int
    gid: int
    mode: int

    @classmethod
    def of(cls, path: StrPath) -> Self:
        facts = os.stat(path)
        return cls(facts.st_uid, facts.st_gid, stat.S_IMODE(facts.st_mode))

    def admits(self, uid: int, groups: frozenset[int]) -> bool:
        """True if that user can read and write the file."""
        if uid in (0, self.uid):
            return uid == 0 or self.mode >> 6 & READ_WRITE == READ_WRITE
        shift = 3 if self.gid in groups else 0
        return self.mode >> shift & READ_WRITE == READ_WRITE

    def locks_out(self, other: Owner, other_groups: frozenset[int]) -> str:
        """Names whom this file would lock out of those that ``other`` admits; "" for none.

        ``other_groups`` are the groups of its owner.
        """
        if other.admits(other.uid, other_groups) and not self.admits(other.uid, other_groups):
            return f"user {user_name(other.uid)}"
        by_group = other.mode >> 3 & READ_WRITE == READ_WRITE
        if by_group and not (self.gid == other.gid or self.mode & READ_WRITE == READ_WRITE):
            return f"group {group_name(other.gid)}"
        return ""


@dataclass(frozen=True, slots=True)
class Identity:
    """The user that makes files, and the groups that it may give them to."""

    uid: int
    gid: int
    groups: frozenset[int]

    @classmethod
    def current(cls) -> Self:
        gid = os.getegid()
        return cls(os.geteuid(), gid, frozenset({gid, *os.getgroups()}))

    def makes_like(self, wanted: Owner, directory: Owner) -> Owner:
        """The file that this user makes in ``directory`` if it should look like ``wanted``: only
        root gives a file to another user, and others only to a group of their own."""
        if self.uid == 0 or wanted.gid in self.groups:
            gid = wanted.gid
        else:
            gid = directory.gid if directory.mode & stat.S_ISGID else self.gid
        return Owner(wanted.uid if self.uid == 0 else self.uid, gid, wanted.mode)


def groups_of(owner: Owner) -> frozenset[int]:
    """The groups of a file's owner. A user that this machine does not know, as in a container,
    counts as a member of the file's group."""
    try:
        entry = pwd.getpwuid(owner.uid)
    except KeyError:
        return frozenset({owner.gid})
    return frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid))


def user_name(uid: int) -> str:
    """The user's name and number, as ``app (1000)``."""
    try:
        return f"{pwd.getpwuid(uid).pw_name} ({uid})"
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """The group's name, its number if it has none."""
    with contextlib.suppress(KeyError):
        return grp.getgrgid(gid).gr_name
    return str(gid)


def shared_mode(directory: Owner, made: Owner) -> int:
    """Permissions that a new file needs so that the group of a shared directory can use it."""
    shared = directory.mode & 0o022 == 0o020 and made.gid == directory.gid
    return 0o060 if shared else 0
