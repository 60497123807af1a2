"""The only access to the local file system.

Owns every open, write, sync and rename of a local file, and the order that makes a file durable
(write, fsync, rename, fsync of the directory). Refuses to know the meaning of the bytes, to
repeat a failed fsync (the kernel drops the pages it could not write), and to close a database
file once it is open, because that would drop the process's SQLite locks on it.

Every system call passes through :meth:`Files.system`, so a test injects faults in one method.
``OSError`` becomes ``DiskFull`` (ENOSPC, EDQUOT) or ``LocalIOError``, which carry the path and
the error number.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import ParamSpec, Self, TypeAlias, TypeVar

from replicator.errors import DiskFull, LocalIOError
from replicator.format.buffers import Buffer

StrPath: TypeAlias = str | os.PathLike[str]
P = ParamSpec("P")
T = TypeVar("T")

READ_SIZE = 1 << 20
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
# Errors of file systems that cannot sync a directory; they need no sync either.
NO_DIRECTORY_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP})

log = logging.getLogger(__name__)


def local_error(error: OSError, path: StrPath) -> LocalIOError:
    """The :class:`LocalIOError` for an ``OSError`` about ``path``."""
    kind = DiskFull if error.errno in NO_SPACE else LocalIOError
    reason = (error.strerror or str(error)).lower()
    return kind(f"{os.fspath(path)}: {reason}", path=os.fspath(path), errno=error.errno)


@contextlib.contextmanager
def about(path: StrPath) -> Iterator[None]:
    """Turn an ``OSError`` in the block into a :class:`LocalIOError` about ``path``."""
    try:
        yield
    except OSError as error:
        raise local_error(error, path) from error


class Files:
    """The local file system. Subclass it and override :meth:`system` to inject faults."""

    def system(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Make one system call (or one statement of the ledger)."""
        return call(*args, **kwargs)

    def create(self, path: StrPath) -> OutFile:
        """A new, empty file to write. Replaces an existing file of that name."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with about(path):
            return OutFile(self, Path(path), self.system(os.open, path, flags, 0o600))

    def publish(self, draft: OutFile, final: StrPath) -> None:
        """Give ``draft`` its final name, durably. Replaces an existing file of that name."""
        draft.sync()
        draft.close()
        with about(final):
            self.system(os.rename, draft.path, final)
        self.sync_directory(Path(final).parent)

    def write_atomic(self, path: StrPath, *data: Buffer) -> None:
        """Replace the content of ``path`` by the concatenated ``data``: all of it or nothing."""
        draft = self.create(f"{os.fspath(path)}.tmp")
        try:
            for piece in data:
                draft.write(piece)
            self.publish(draft, path)
        except BaseException:
            draft.discard()
            raise

    def sync_directory(self, path: StrPath) -> None:
        """Make the names in a directory durable."""
        with about(path):
            fd = self.system(os.open, path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self.system(os.fsync, fd)
            except OSError as error:
                if error.errno not in NO_DIRECTORY_SYNC:
                    raise
            finally:
                os.close(fd)

    def open_read(self, path: StrPath) -> InFile:
        with about(path):
            fd = self.system(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
        return InFile(self, Path(path), fd)

    def read(self, path: StrPath) -> bytes:
        """The whole file."""
        with self.open_read(path) as file:
            return file.pread(file.size(), 0)

    def sha256(self, path: StrPath) -> str:
        """SHA-256 of the whole file, as hex. Uses little memory."""
        digest = hashlib.sha256()
        for piece in self.pieces(path, READ_SIZE):
            digest.update(piece)
        return digest.hexdigest()

    def pieces(self, path: StrPath, size: int) -> Generator[bytes]:
        """The whole file, ``size`` bytes at a time."""
        with self.open_read(path) as file:
            for offset in range(0, file.size(), size):
                yield file.pread(size, offset)

    def rename(self, old: StrPath, new: StrPath) -> None:
        """Rename durably within one directory."""
        with about(old):
            self.system(os.rename, old, new)
        self.sync_directory(Path(new).parent)

    def unlink(self, path: StrPath, *, missing_ok: bool = False) -> None:
        """Remove a name. Not durable: the caller removes a file that is back after a crash."""
        with about(path):
            try:
                self.system(os.unlink, path)
            except FileNotFoundError:
                if not missing_ok:
                    raise

    def mkdir(self, path: StrPath) -> None:
        """Make a directory and its missing parents, durably; an existing one is fine."""
        target = Path(path)
        if target.is_dir():
            return
        self.mkdir(target.parent)
        with about(target):
            try:
                self.system(os.mkdir, target, 0o700)
            except FileExistsError:  # another process made it since, which is fine, or it is a file
                if not target.is_dir():
                    raise
        self.sync_directory(target.parent)

    def remove_directory(self, path: StrPath) -> None:
        """Remove an empty directory."""
        with about(path):
            self.system(os.rmdir, path)

    def copy_mode(self, source: StrPath, target: StrPath) -> None:
        """Give ``target`` the permissions of ``source``, and its owner if that is permitted."""
        with about(target):
            facts = self.system(os.stat, source)
            self.system(os.chmod, target, facts.st_mode & 0o7777)
            with contextlib.suppress(PermissionError):
                self.system(os.chown, target, facts.st_uid, facts.st_gid)

    def listdir(self, path: StrPath) -> list[str]:
        with about(path):
            return sorted(self.system(os.listdir, path))

    def exists(self, path: StrPath) -> bool:
        return os.path.lexists(path)

    def size(self, path: StrPath) -> int:
        with about(path):
            return self.system(os.stat, path).st_size

    def disk_free(self, path: StrPath) -> int:
        """Bytes an unprivileged process may still write on the file system of ``path``."""
        with about(path):
            facts = self.system(os.statvfs, path)
        return facts.f_bavail * facts.f_frsize


LOCAL = Files()
"""The local file system without injected faults."""


class OutFile:
    """A file being written. After a failed write or sync it can only be discarded."""

    def __init__(self, files: Files, path: Path, fd: int) -> None:
        self.path = path
        self.size = 0
        self._files = files
        self._fd = fd
        self._failed = False

    def write(self, data: Buffer) -> None:
        """Append all of ``data``; a short write is completed."""
        rest = memoryview(data).cast("B")
        with self._guarded():
            while rest:
                count = self._files.system(os.write, self._fd, rest)
                if not count:
                    raise OSError(errno.EIO, "nothing could be written")
                self.size += count
                rest = rest[count:]

    def sync(self) -> None:
        with self._guarded():
            self._files.system(os.fsync, self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def discard(self) -> None:
        """Close and remove the file. Never raises, because callers clean up with it."""
        self.close()
        try:
            self._files.unlink(self.path, missing_ok=True)
        except LocalIOError as error:
            log.warning("%s; the temporary file was not removed", error)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        if self._failed:
            raise LocalIOError(f"{self.path}: an earlier write failed", path=self.path)
        try:
            with about(self.path):
                yield
        except BaseException:
            self._failed = True
            raise


class RawFile:
    """Positioned reads of an open file. Owns no descriptor."""

    def __init__(self, files: Files, path: Path, fd: int) -> None:
        self.path = path
        self._files = files
        self._fd = fd

    def fileno(self) -> int:
        """The descriptor, for questions about the file's locks. Never close it."""
        return self._fd

    def pread(self, n: int, offset: int) -> bytes:
        """``n`` bytes at ``offset``; fewer only at the end of the file."""
        with about(self.path):
            data = self._files.system(os.pread, self._fd, n, offset)
        if not data or len(data) == n:
            return data
        return data + self.pread(n - len(data), offset + len(data))

    def preadinto(self, buffer: Buffer, offset: int) -> int:
        """Fill ``buffer`` from ``offset``. Returns the bytes read: fewer only at the file's end."""
        rest = memoryview(buffer).cast("B")
        total = 0
        while rest:
            with about(self.path):
                count = self._files.system(os.preadv, self._fd, [rest], offset + total)
            if not count:
                break
            total += count
            rest = rest[count:]
        return total

    def size(self) -> int:
        with about(self.path):
            return self._files.system(os.fstat, self._fd).st_size

    def identity(self) -> tuple[int, int]:
        """Device and inode."""
        with about(self.path):
            facts = self._files.system(os.fstat, self._fd)
        return facts.st_dev, facts.st_ino


class InFile(RawFile):
    """A file opened for reading; the caller closes it."""

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


_databases: dict[tuple[int, int], int] = {}
_databases_lock = threading.Lock()


def database_reader(path: StrPath, files: Files = LOCAL) -> RawFile:
    """Raw reads of a database file, by one descriptor per inode for the life of the process.

    Closing any descriptor of a file drops all POSIX locks of the process on it, SQLite's
    included (sqlite.org, "How To Corrupt An SQLite Database File", 2.2), so none is closed.
    The open descriptor also prevents that the system reuses the inode's number.
    """
    with _databases_lock, about(path):
        facts = files.system(os.stat, path)
        identity = facts.st_dev, facts.st_ino
        if identity not in _databases:
            identity = _open_database(path, files)
        return RawFile(files, Path(path), _databases[identity])


def _open_database(path: StrPath, files: Files) -> tuple[int, int]:
    fd = files.system(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
    facts = os.fstat(fd)
    identity = facts.st_dev, facts.st_ino
    # The inode is known here if the path was replaced since the stat. The second descriptor
    # stays open and unused, because it must not be closed.
    _databases.setdefault(identity, fd)
    return identity
