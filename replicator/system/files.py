"""The only access to the local file system.

Owns every open, write, sync and rename of a local file, and the order that makes a file durable
(write, fsync, rename, fsync of the directory). Refuses to know the meaning of the bytes, to
repeat a failed fsync (the kernel drops the pages it could not write), and to read a database file;
see :mod:`.database_files`.

No open of a file follows a symbolic link in the last name of its path, and a new file never takes
over an existing one: a directory may hold names that another user made.

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
import stat
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, Self, TypeAlias, TypedDict, TypeVar

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


@dataclass(frozen=True, slots=True)
class HeldName(os.PathLike[str]):
    """A name in an open directory: as a path it is the directory's path and the name, but the
    calls of :class:`Files` resolve it by the descriptor."""

    directory: Path
    fd: int
    name: str

    def __fspath__(self) -> str:
        return str(self.directory / self.name)

    __str__ = __fspath__


class _At(TypedDict, total=False):
    dir_fd: int


def located(path: StrPath) -> tuple[StrPath, _At]:
    """``path`` as the first argument and the keywords of a system call."""
    return (path.name, {"dir_fd": path.fd}) if isinstance(path, HeldName) else (path, {})


# A file of the right name may be a pipe; opening one to read would wait for its writer.
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_NEW = os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class Files:
    """The local file system. Subclass it and override :meth:`system` to inject faults."""

    def system(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Make one system call (or one statement of the ledger)."""
        return call(*args, **kwargs)

    def create(self, path: StrPath) -> OutFile:
        """A new, empty file to write. Removes an existing file of that name."""
        with about(path):
            try:
                fd = self.descriptor(path, os.O_WRONLY | _NEW)
            except FileExistsError:
                self.unlink(path)
                fd = self.descriptor(path, os.O_WRONLY | _NEW)
        return OutFile(self, path, fd)

    def descriptor(self, path: StrPath, flags: int, mode: int = 0o600) -> int:
        """A descriptor of ``path``; the caller turns ``OSError`` into our errors."""
        name, at = located(path)
        return self.system(os.open, name, flags, mode, **at)

    def publish(self, draft: OutFile, final: StrPath) -> None:
        """Give ``draft`` its final name, durably. Replaces an existing file of that name."""
        draft.sync()
        draft.close()
        self._move(draft.path, final, about_path=final)
        self.sync_parent(final)

    def _move(self, old: StrPath, new: StrPath, *, about_path: StrPath) -> None:
        (source, at), (target, to) = located(old), located(new)
        with about(about_path):
            if not (at or to):
                self.system(os.rename, source, target)
                return
            here, there = at.get("dir_fd"), to.get("dir_fd")
            self.system(os.rename, source, target, src_dir_fd=here, dst_dir_fd=there)

    def write_atomic(self, path: StrPath, *data: Buffer) -> None:
        """Replace the content of ``path`` by the concatenated ``data``: all of it or nothing."""
        draft = self.create(sibling(path, ".tmp"))
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
                self.sync_open_directory(path, fd)
            finally:
                os.close(fd)

    def sync_open_directory(self, path: StrPath, fd: int) -> None:
        """As :meth:`sync_directory`, of the directory that ``fd`` holds open."""
        with about(path):
            try:
                self.system(os.fsync, fd)
            except OSError as error:
                if error.errno not in NO_DIRECTORY_SYNC:
                    raise

    def sync_parent(self, path: StrPath) -> None:
        """Make the name ``path`` durable."""
        if isinstance(path, HeldName):
            self.sync_open_directory(path.directory, path.fd)
        else:
            self.sync_directory(Path(path).parent)

    def open_read(self, path: StrPath) -> InFile:
        with about(path):
            return InFile(self, path, self.descriptor(path, _READ))

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
        """Rename, and make the new name durable."""
        self._move(old, new, about_path=old)
        self.sync_parent(new)

    def unlink(self, path: StrPath, *, missing_ok: bool = False) -> None:
        """Remove a name. Not durable: the caller removes a file that is back after a crash."""
        name, at = located(path)
        with about(path):
            try:
                self.system(os.unlink, name, **at)
            except FileNotFoundError:
                if not missing_ok:
                    raise

    def mkdir(self, path: StrPath) -> None:
        """Make a directory and its missing parents, durably; an existing one is fine."""
        if os.path.isdir(path):
            return
        if not isinstance(path, HeldName):
            self.mkdir(Path(path).parent)
        name, at = located(path)
        with about(path):
            try:
                self.system(os.mkdir, name, 0o700, **at)
            except FileExistsError:  # another process made it since, which is fine, or it is a file
                if not os.path.isdir(path):
                    raise
        self.sync_parent(path)

    def remove_directory(self, path: StrPath) -> None:
        """Remove an empty directory."""
        name, at = located(path)
        with about(path):
            self.system(os.rmdir, name, **at)

    def set_owner(self, path: StrPath, uid: int, gid: int, mode: int) -> None:
        """Set user, group (ids) and permissions of a file or directory that this process made."""
        with about(path), self.open_read(path) as file:
            facts = os.fstat(file.fileno())
            if facts.st_uid != os.geteuid() or (
                stat.S_ISREG(facts.st_mode) and facts.st_nlink != 1
            ):
                raise PermissionError(errno.EPERM, "it is not the file that was made")
            if (facts.st_uid, facts.st_gid) != (uid, gid):
                self.system(os.fchown, file.fileno(), uid, gid)
            self.system(os.fchmod, file.fileno(), mode)

    def listdir(self, path: StrPath) -> list[str]:
        with about(path):
            return sorted(self.system(os.listdir, path))

    def exists(self, path: StrPath) -> bool:
        name, at = located(path)
        try:
            os.stat(name, follow_symlinks=False, **at)
        except (OSError, ValueError):
            return False
        return True

    def size(self, path: StrPath) -> int:
        name, at = located(path)
        with about(path):
            return self.system(os.stat, name, **at).st_size

    def allocated(self, path: StrPath) -> int:
        """Bytes of the disk that a file takes, without its holes; 0 if it does not exist."""
        name, at = located(path)
        with about(path), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return self.system(os.stat, name, follow_symlinks=False, **at).st_blocks * 512
        return 0

    def disk_free(self, path: StrPath) -> int:
        """Bytes an unprivileged process may still write on the file system of ``path``."""
        with about(path):
            facts = self.system(os.statvfs, path)
        return facts.f_bavail * facts.f_frsize


LOCAL = Files()
"""The local file system without injected faults."""


def sibling(path: StrPath, suffix: str) -> StrPath:
    """``path`` with ``suffix`` appended to its name."""
    if isinstance(path, HeldName):
        return HeldName(path.directory, path.fd, path.name + suffix)
    return f"{os.fspath(path)}{suffix}"


class OutFile:
    """A file being written. After a failed write or sync it can only be discarded."""

    def __init__(self, files: Files, path: StrPath, fd: int) -> None:
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

    def __init__(self, files: Files, path: StrPath, fd: int) -> None:
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

    def forget(self) -> None:
        """Read no more: the descriptor may be closed."""
        self._fd = -1

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
