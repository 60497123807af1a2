"""The one door to the local file system.

Owns: every open, write, sync, rename and lock of a local file, and the order that makes a
file durable (write, fsync, rename, fsync of the directory). Refuses: to know what the bytes
mean, to repeat a failed fsync (the kernel forgets what it could not write), and to close a
database file once it is open, because that would drop the process's SQLite locks on it.

Every system call passes through :meth:`Files.system`, so one method is the fault seam.
``OSError`` becomes ``DiskFull`` (ENOSPC, EDQUOT) or ``LocalIOError``; the message names the
path.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import ParamSpec, Self, TypeAlias, TypeVar

from replicator.errors import AlreadyRunning, DiskFull, LocalIOError

StrPath: TypeAlias = str | os.PathLike[str]
Buffer: TypeAlias = bytes | bytearray | memoryview
P = ParamSpec("P")
T = TypeVar("T")

READ_SIZE = 1 << 20
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
# What file systems answer that cannot sync a directory; there is nothing to make durable then.
NO_DIRECTORY_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP})

log = logging.getLogger(__name__)


def local_error(error: OSError, path: StrPath) -> LocalIOError:
    """The error of this project for an ``OSError`` about ``path``."""
    kind = DiskFull if error.errno in NO_SPACE else LocalIOError
    reason = (error.strerror or str(error)).lower()
    return kind(f"{os.fspath(path)}: {reason}")


@contextlib.contextmanager
def about(path: StrPath) -> Iterator[None]:
    """Turns an ``OSError`` of the block into one of ours that names ``path``."""
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
        """A new, empty file to write; an old one of that name is replaced."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with about(path):
            return OutFile(self, Path(path), self.system(os.open, path, flags, 0o600))

    def publish(self, draft: OutFile, final: StrPath) -> None:
        """Give ``draft`` its final name, durably, replacing what has that name."""
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
        """Of the whole file, as hex; memory stays small."""
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
        """Remove a name. Not durable by itself: what comes back after a crash is removed again."""
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
            except FileExistsError:  # somebody made it since, which is fine, or it is a file
                if not target.is_dir():
                    raise
        self.sync_directory(target.parent)

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
        """Close and remove the file; for cleaning up, so it never raises."""
        self.close()
        try:
            self._files.unlink(self.path, missing_ok=True)
        except LocalIOError as error:
            log.warning("%s; the temporary file stays for now", error)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        if self._failed:
            raise LocalIOError(f"{self.path}: an earlier write failed")
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
        """For questions about the file's locks; never close it."""
        return self._fd

    def pread(self, n: int, offset: int) -> bytes:
        """``n`` bytes at ``offset``; fewer only at the end of the file."""
        with about(self.path):
            data = self._files.system(os.pread, self._fd, n, offset)
        if not data or len(data) == n:
            return data
        return data + self.pread(n - len(data), offset + len(data))

    def preadinto(self, buffer: Buffer, offset: int) -> int:
        """Fill ``buffer`` from ``offset``; the count read, short only at the end of the file."""
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
    """A file opened for reading that is closed by its user."""

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


def database_reader(path: StrPath, files: Files | None = None) -> RawFile:
    """Raw reads of a database file, by one descriptor per inode for the life of the process.

    Closing any descriptor of a file drops all POSIX locks of the process on it, SQLite's
    included (sqlite.org, "How To Corrupt An SQLite Database File", 2.2), so none is closed.
    The open descriptor also keeps the inode's number from being used again.
    """
    files = files or Files()
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
    # A known inode is met here when the path was replaced since the stat. The second
    # descriptor stays open and unused: closing it is what must not happen.
    _databases.setdefault(identity, fd)
    return identity


class DirLock:
    """At most one holder per directory, among processes and within one.

    ``flock`` on ``{directory}/lock``: the kernel lets go when the holder dies, however it
    dies. The descriptor is close-on-exec, so a child process that is run does not hold it.
    """

    def __init__(self, directory: StrPath, files: Files | None = None) -> None:
        self.path = Path(directory) / "lock"
        self._files = files or Files()
        self._fd = -1

    def acquire(self) -> None:
        """Take the lock; ``AlreadyRunning`` names the pid of the holder."""
        self._files.mkdir(self.path.parent)
        with about(self.path):
            while not self._try():
                pass

    def release(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def _try(self) -> bool:
        """One attempt; False when the file was removed between opening and locking it."""
        fd = self._files.system(os.open, self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._files.system(fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self._is_current(fd):
                os.close(fd)
                return False
            self._files.system(os.ftruncate, fd, 0)
            self._files.system(os.pwrite, fd, str(os.getpid()).encode(), 0)
        except BlockingIOError as error:
            holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
            os.close(fd)
            raise self._already_running(holder) from error
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        return True

    def _is_current(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), self._files.system(os.stat, self.path))
        except FileNotFoundError:
            return False

    def _already_running(self, holder: str) -> AlreadyRunning:
        who = f"process {holder}" if holder else "another process"
        return AlreadyRunning(
            f"{who} already works with {self.path.parent}",
            hint="stop it first, or give this replicator its own --cache-dir and database",
        )
