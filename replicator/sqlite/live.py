"""The one door to the user's live database: holds, passive checkpoints, the raw files.

Owns every SQLite connection to that database and every read of its bytes. Refuses to write:
there is no statement here that changes a table. The only pragmas issued are the switch to WAL
mode (asked for once, when it is not on yet), passive checkpoints, and, when nobody else has the
database open, the one that empties the log as SQLite does at a last close.

POSIX locks belong to the process: closing any descriptor of the database file would drop
SQLite's locks on it, so raw reads go through :func:`replicator.system.files.database_reader`,
which opens it once per inode and never closes it. ``-shm`` is never opened here. Opening and
closing ``-wal`` is harmless, for no locks live there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import stat
import struct
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from replicator.errors import (
    DatabaseBusy,
    DatabaseReplaced,
    DatabaseUnusable,
    LocalIOError,
    ReplicatorError,
)
from replicator.format.database import DatabaseHeader, parse_database_header
from replicator.format.wal import HEADER_SIZE, WalHeader, parse_header
from replicator.system import process
from replicator.system.files import Files, RawFile, database_reader, local_error

HEADER_BYTES = 100  # of a database file; SQLite documentation, "Database File Format", 1.3
SHARED_FIRST, SHARED_SIZE = 0x40000002, 510  # whoever has a WAL database open locks one of these
FLOCK = struct.Struct("hhqqi4x")  # struct flock of fcntl(2) on 64-bit Linux

Stamp = tuple[int, int]  # when a file was written last (ns), and its size


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Answer of a passive checkpoint: frames in the WAL and frames copied, -1 if unknown."""

    busy: bool  # another checkpoint is running
    frames: int
    copied: int


def wal_path(database: Path) -> Path:
    return database.with_name(database.name + "-wal")


def identity(path: Path) -> tuple[int, int] | None:
    """(device, inode) of the file, None when there is none or it has no bytes yet."""
    found = _facts(path)
    return (found.st_dev, found.st_ino) if found is not None else None


def _facts(path: Path) -> os.stat_result | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise local_error(error, path) from error
    return found if found.st_size else None


def connect(path: Path, *, timeout: float, mode: str = "rw") -> sqlite3.Connection:
    """A connection that creates nothing and is used by one thread at a time."""
    try:
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode={mode}",
            uri=True,
            timeout=timeout,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=8,
        )
    except sqlite3.Error as error:
        raise DatabaseUnusable(f"cannot open {path}: {error}") from error
    if sys.version_info >= (3, 12):  # leave the log alone when we close last
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)
    return connection


def _translate(path: Path, error: sqlite3.Error) -> ReplicatorError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return DatabaseBusy(f"{path} is locked: {error}")
    if code == sqlite3.SQLITE_NOTADB:
        return not_a_database(path)
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return read_only(path)
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL):
        return LocalIOError(f"{path}: {error}")
    return DatabaseUnusable(f"{path}: {error}")


def not_a_database(path: Path) -> DatabaseUnusable:
    return DatabaseUnusable(
        f"{path} is not a SQLite database, or it is encrypted",
        hint="name a plain SQLite file; an encrypted one (SQLCipher, SEE) cannot be followed",
    )


def read_only(path: Path) -> DatabaseUnusable:
    return DatabaseUnusable(
        f"{path} is read-only, and a reader of a WAL database must be able to lock it",
        hint="give this user write permission to the file and its directory (chmod u+w)",
    )


def exclusive(path: Path) -> DatabaseUnusable:
    return DatabaseUnusable(
        f"{path} stays locked by another process, most likely in EXCLUSIVE locking mode",
        hint="let the application use PRAGMA locking_mode=NORMAL, or end its long transaction",
    )


class Hold:
    """A connection that can hold one read transaction open.

    It is a read-only one, so that its close, even as the last one of all, copies nothing into
    the database file: that may be another one by then.
    """

    def __init__(self, path: Path, *, timeout: float) -> None:
        self._path = path
        self._connection = connect(path, timeout=timeout, mode="ro")

    def begin(self) -> None:
        """Start the read transaction; SQLite assigns its read mark now."""
        try:
            self._connection.execute("BEGIN")
            self._connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
        except sqlite3.Error as error:
            self.end()
            raise _translate(self._path, error) from error

    def end(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def close(self) -> None:
        self._connection.close()


class LiveDatabase:
    """One open database file, as long as the path still names the same inode."""

    def __init__(
        self, path: Path, *, busy_timeout: float = 5.0, files: Files | None = None
    ) -> None:
        """Check the file and switch it to WAL mode if it is not; ``DatabaseUnusable``."""
        self.path = path
        self.files = files or Files()
        self._timeout = busy_timeout
        _check_permissions(path)
        self.raw: RawFile = database_reader(path, self.files)
        self.identity = identity(path)
        self.switched = False
        header = self.header()  # before any connection: a foreign file is told apart first
        self._checkpointer = connect(path, timeout=busy_timeout)
        self._locker: sqlite3.Connection | None = None
        self._locking = threading.RLock()  # whoever asks for the write lock, or holds it
        self._idle_holds: list[Hold] = []
        self._holds: list[Hold] = []
        self.wal = WalFile(wal_path(path), self.files)
        try:
            if not header.wal_mode:
                self._switch_to_wal()
            self._probe()
        except BaseException:
            self.close()
            raise

    def header(self) -> DatabaseHeader:
        """The database file's own header, as it lies on disk."""
        data = self.raw.pread(HEADER_BYTES, 0)
        header = parse_database_header(data)
        if header is None:
            raise not_a_database(self.path)
        return header

    def _switch_to_wal(self) -> None:
        try:
            mode = self._checkpointer.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        except sqlite3.Error as error:
            raise self._explain(error) from error
        if mode != "wal":
            raise DatabaseUnusable(
                f"{self.path} cannot be switched to WAL mode (it stays in {mode} mode)",
                hint="its file system must support shared memory; network file systems do not",
            )
        self.switched = True

    def _probe(self) -> None:
        try:
            self._checkpointer.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
        except sqlite3.Error as error:
            raise self._explain(error) from error

    def _explain(self, error: sqlite3.Error) -> ReplicatorError:
        found = _translate(self.path, error)
        return exclusive(self.path) if isinstance(found, DatabaseBusy) else found

    def check_identity(self) -> Stamp:
        """``DatabaseReplaced`` when the path names another file, or none, by now."""
        found = _facts(self.path)
        if found is None or (found.st_dev, found.st_ino) != self.identity:
            raise DatabaseReplaced(f"{self.path} was replaced or deleted")
        return found.st_mtime_ns, found.st_size

    def alone(self) -> bool:
        """Whether nobody else has the database open; False where that cannot be known.

        Another process shows by its lock, whatever its name space; another connection of this
        process by its descriptor (SQLite keeps even those of closed connections for as long as
        anybody here holds a lock, so beside such an application the answer stays False).
        """
        if not sys.platform.startswith("linux"):
            return False
        ask = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, SHARED_FIRST, SHARED_SIZE, 0)
        ours = len(self._holds) + (self._locker is not None) + 2  # the checkpointer, raw reads
        try:
            kind, *_ = FLOCK.unpack(fcntl.fcntl(self.raw.fileno(), fcntl.F_GETLK, ask))
            if kind != fcntl.F_UNLCK:
                return False
            # counting takes 30 ms where 500 databases are open
            return process.claimed() or self._descriptors() == ours
        except OSError:  # no descriptor left, say
            return False

    def _descriptors(self) -> int:
        """How often this process has the database file open."""
        found = 0
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # the one of the listing itself, for example
                facts = os.fstat(int(name))
                found += (facts.st_dev, facts.st_ino) == self.identity
        return found

    def reopen_after_last_close(self) -> None:
        """Close everything, so that SQLite removes the log as it does at a last close, and open
        the database again. Every hold is gone then.

        What a log leaves behind would be taken for the log of whatever file is put in the place
        of the database next; without us the application's last close removes it. Somebody who
        came meanwhile keeps the log.
        """
        for connection in (*self._holds, self._locker):
            if connection is not None:
                connection.close()
        self._holds, self._idle_holds, self._locker = [], [], None
        if sys.version_info >= (3, 12):
            self._checkpointer.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, False)
        self._checkpointer.close()
        self.wal.close()
        self.check_identity()
        self._checkpointer = connect(self.path, timeout=self._timeout)
        self._probe()

    def hold(self) -> Hold:
        """Open a read transaction; give it back with :meth:`release`."""
        hold = (
            self._idle_holds.pop() if self._idle_holds else Hold(self.path, timeout=self._timeout)
        )
        if hold not in self._holds:
            self._holds.append(hold)
        hold.begin()
        return hold

    def release(self, hold: Hold) -> None:
        """End a hold. Does nothing for one that has ended, or that
        :meth:`reopen_after_last_close` closed."""
        if hold in self._holds and hold not in self._idle_holds:
            hold.end()
            self._idle_holds.append(hold)

    def checkpoint(self) -> Checkpoint:
        """One passive checkpoint: never waits, never makes anybody wait."""
        try:
            row = self._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            raise _translate(self.path, error) from error
        return Checkpoint(busy=bool(row[0]), frames=row[1], copied=row[2])

    @contextlib.contextmanager
    def write_lock(self, *, patience: float) -> Iterator[bool]:
        """Hold the write lock inside the block; yields False if it was not had in time (s).

        Asked for without SQLite's busy handler, whose growing sleeps would lose every race
        against a writer that never pauses. Another thread that asks waits for the end of the block.
        """
        with self._locking:
            if self._locker is None:
                self._locker = connect(self.path, timeout=0)
            if self._locker.in_transaction:  # held already, further out
                yield True
                return
            taken = self._take_lock(self._locker, time.monotonic() + patience)
            try:
                yield taken
            finally:
                if taken:
                    self._locker.execute("ROLLBACK")

    def _take_lock(self, locker: sqlite3.Connection, until: float) -> bool:
        while True:
            try:
                locker.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if not isinstance(_translate(self.path, error), DatabaseBusy):
                    raise _translate(self.path, error) from error
                if time.monotonic() >= until:
                    return False
                time.sleep(0.0002)
            else:
                return True

    def close(self) -> None:
        """Close every connection, the holds last. The raw descriptor stays, see the module's
        text."""
        for hold in self._holds:
            hold.end()
        for connection in (self._locker, self._checkpointer):
            if connection is not None:
                connection.close()
        for hold in self._holds:
            hold.close()
        self._holds, self._idle_holds = [], []
        self.wal.close()


class WalFile:
    """The ``-wal`` file, re-opened whenever its path names another inode."""

    def __init__(self, path: Path, files: Files | None = None) -> None:
        self.path = path
        self._files = files or Files()
        self.replaced = False  # whether the file was ever another one, or gone, after it was there
        self._descriptor: int | None = None
        self._identity: tuple[int, int] | None = None

    def refresh(self) -> os.stat_result | None:
        """Follow the path to the file it names now; None when there is none."""
        try:
            found = self._files.system(os.stat, self.path)
            if self._identity != (found.st_dev, found.st_ino):
                self.replaced |= self._identity is not None
                self.close()
                flags = os.O_RDONLY | os.O_CLOEXEC
                self._descriptor = self._files.system(os.open, self.path, flags)
                found = os.fstat(self._descriptor)
                self._identity = (found.st_dev, found.st_ino)
        except FileNotFoundError:
            self.replaced |= self._identity is not None
            self.close()
            return None
        except OSError as error:
            raise local_error(error, self.path) from error
        return found

    def header(self) -> WalHeader | None:
        """The log's header; None when the log is empty."""
        return parse_header(self.read(HEADER_SIZE, 0))

    def read(self, size: int, offset: int) -> bytes:
        """Up to ``size`` bytes; fewer only at the end of the file."""
        if self._descriptor is None:
            return b""
        try:
            return self._files.system(os.pread, self._descriptor, size, offset)
        except OSError as error:
            raise local_error(error, self.path) from error

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor, self._identity = None, None


def _check_permissions(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise local_error(error, path) from error
    if not stat.S_ISREG(mode):
        raise not_a_database(path)
    marked = not mode & 0o222  # root may write anyway, but somebody meant it
    if marked or not os.access(path, os.R_OK | os.W_OK) or not os.access(path.parent, os.W_OK):
        raise read_only(path)
