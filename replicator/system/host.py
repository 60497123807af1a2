"""Facts about the machine: the SQLite library in use and the file system of a path.

Owns: which SQLite versions and file systems are unsafe. Refuses to change anything.
"""

from __future__ import annotations

import os
import socket
import sqlite3
from dataclasses import dataclass
from pathlib import Path

_NETWORK = frozenset(
    {
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "fuse.glusterfs",
        "fuse.s3fs",
        "fuse.sshfs",
        "gfs2",
        "glusterfs",
        "lustre",
        "nfs",
        "nfs4",
        "ocfs2",
        "smb3",
        "smbfs",
        "virtiofs",
    }
)
MOUNTS = Path("/proc/self/mountinfo")


@dataclass(frozen=True, slots=True)
class FileSystem:
    """The file system of a path: its type and mount point; type "unknown" if not known."""

    kind: str
    mount: str

    @property
    def is_network(self) -> bool:
        """True if SQLite's locks and shared memory are not reliable on it."""
        return self.kind in _NETWORK


def process_label() -> str:
    """A name of this process for readers on other hosts: ``process 17 on web-1``; ASCII."""
    name = socket.gethostname().encode("ascii", "replace").decode()
    return f"process {os.getpid()} on {name[:64]}"


def sqlite_version() -> tuple[int, int, int]:
    """The version of the SQLite library that this process uses."""
    return sqlite3.sqlite_version_info


def has_wal_reset_bug(version: tuple[int, int, int]) -> bool:
    """True if a checkpoint that overlaps a reset of the WAL can lose frames.

    Source: SQLite release notes of 3.51.3 (3.7.0 … 3.51.2 affected), backported to 3.44.6
    and 3.50.7.
    """
    if version[:2] == (3, 44):
        return version < (3, 44, 6)
    if version[:2] == (3, 50):
        return version < (3, 50, 7)
    return (3, 7, 0) <= version < (3, 51, 3)


def file_system(path: Path, mounts: Path = MOUNTS) -> FileSystem:
    """The file system of a path, from the kernel's mount table (proc(5), mountinfo)."""
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return FileSystem("unknown", "")
    target = os.path.realpath(path)
    best = FileSystem("unknown", "")
    for line in lines:
        found = _parse_mount(line)
        if found and _is_below(target, found.mount) and len(found.mount) >= len(best.mount):
            best = found
    return best


def _parse_mount(line: str) -> FileSystem | None:
    left, separator, right = line.partition(" - ")
    fields = left.split(" ")
    if not separator or len(fields) < 5:
        return None
    return FileSystem(right.split(" ")[0], _unescape(fields[4]))


def _unescape(field: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field


def _is_below(path: str, mount: str) -> bool:
    return path == mount or path.startswith(mount.rstrip("/") + "/")
