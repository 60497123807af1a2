"""The only access to the user's live database: holds, passive checkpoints, the raw files.

Owns every SQLite connection to that database and every read of its bytes. Refuses to change a
table. The only pragmas are the switch to WAL mode (once, if the database is in another mode),
passive checkpoints, and a flag of each connection that reads past what a newer SQLite wrote into
the schema. If no other connection has the database open, SQLite may also empty and remove the WAL,
as it does at every last close.

POSIX locks belong to the process: closing any descriptor of the database file would drop
SQLite's locks on it, so raw reads use :func:`replicator.system.database_files.database_reader`,
which opens the file once per inode. This module never opens ``-shm``; see
:mod:`replicator.sqlite.wal_index`. Opening and closing ``-wal`` is harmless, because SQLite takes
no locks on it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from replicator.errors import (
    DatabaseBusy,
    DatabaseMissing,
    DatabaseReplaced,
    DatabaseUnusable,
    LocalIOError,
    ReplicatorError,
)
from replicator.format.database import HEADER_BYTES, DatabaseHeader, parse_database_header
from replicator.sqlite.connect import database_uri, primary_code, read_past_schema
from replicator.sqlite.mounted import require_unmounted
from replicator.sqlite.side_files import prepare_side_files
from replicator.sqlite.wal_file import WalFile
from replicator.sqlite.wal_index import WalIndex, locked_by_another
from replicator.sqlite.wal_mode import switch_to_wal
from replicator.system import process
from replicator.system.database_files import count_descriptors, database_reader, release_database
from replicator.system.files import LOCAL, Files, RawFile, local_error
from replicator.system.host import MOUNTS
from replicator.system.paths import index_path, resolved, wal_path

SHARED_FIRST, SHARED_SIZE = 0x40000002, 510  # a connection to a WAL database locks one of these

HAS_TABLES = (
    "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' "
    "AND substr(name, 1, 7) <> 'sqlite_')"
)

Stamp: TypeAlias = tuple[int, int]  # modification time (ns) and size of a file


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The result of a passive checkpoint: frames in the WAL and frames copied, -1 if unknown."""

    busy: bool  # another checkpoint is running
    frames: int
    copied: int


@dataclass(frozen=True, slots=True)
class Content:
    """The size of a database in pages, 0 if unknown, and whether it has a table."""

    pages: int
    tables: bool


def identity(path: Path) -> tuple[int, int] | None:
    """(device, inode) of the file; None if there is none, or it is empty."""
    found = _stat(path)
    return (found.st_dev, found.st_ino) if found is not None else None


def _stat(path: Path) -> os.stat_result | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise local_error(error, path) from error
    return found if found.st_size else None


def missing(source: Path) -> DatabaseMissing:
    """The error for a path without a database."""
    return DatabaseMissing(f"{source} does not exist, or is empty", path=source)


def _inode(path: Path) -> tuple[int, int] | None:
    """(device, inode) of a file or directory; None if there is none."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise local_error(error, path) from error
    return found.st_dev, found.st_ino


def connect(path: Path, *, timeout: float, mode: str = "rw") -> sqlite3.Connection:
    """A connection that creates nothing. One thread uses it at a time."""
    try:
        connection = sqlite3.connect(
            database_uri(path, f"mode={mode}"),
            uri=True,
            timeout=timeout,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=8,
        )
        read_past_schema(connection)
    except sqlite3.Error as error:
        raise DatabaseUnusable(f"cannot open {path}: {error}", path=path) from error
    if sys.version_info >= (3, 12):  # our last close must not checkpoint or remove the WAL
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)
    return connection


def database_error(path: Path, error: sqlite3.Error) -> ReplicatorError:
    """The error of :mod:`replicator.errors` for an error of SQLite about the database."""
    code = primary_code(error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return DatabaseBusy(f"{path} is locked: {error}", path=path)
    if code == sqlite3.SQLITE_NOTADB:
        return not_a_database(path)
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return read_only(path)
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL):
        return LocalIOError(f"{path}: {error}", path=path)
    return DatabaseUnusable(f"{path}: {error}", path=path)


def not_a_database(path: Path) -> DatabaseUnusable:
    return DatabaseUnusable(
        f"{path} is not a SQLite database, or it is encrypted",
        path=path,
        code="not_a_database",
        hint="name a plain SQLite file; an encrypted one (SQLCipher, SEE) cannot be replicated",
    )


def read_only(path: Path) -> DatabaseUnusable:
    return DatabaseUnusable(
        f"{path} is read-only, and a reader of a WAL database must be able to lock it",
        path=path,
        code="database_read_only",
        hint="give this user write permission to the file and its directory (chmod u+w)",
    )


def exclusive(path: Path) -> DatabaseUnusable:
    return DatabaseUnusable(
        f"{path} stays locked by another process, most likely in EXCLUSIVE locking mode",
        path=path,
        code="database_locked",
        hint="let the application use PRAGMA locking_mode=NORMAL, or end its long transaction",
    )


class Hold:
    """A connection that can keep one read transaction open.

    The connection is read-only. So even the last close of all copies nothing into the database
    file, which may have been replaced by then.
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
            raise database_error(self._path, error) from error

    def end(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def close(self) -> None:
        self._connection.close()


class LiveDatabase:
    """One open database file, as long as the path still names the same inode.

    ``source`` is the path as it was given. It is resolved anew at each look, because an application
    that opens it does so too. ``path`` is where it led at first; SQLite names the WAL after that.
    """

    def __init__(
        self,
        source: Path,
        *,
        busy_timeout: float = 5.0,
        switch_in_use: bool = False,
        files: Files = LOCAL,
        mounts: Path = MOUNTS,
    ) -> None:
        """Check the file, and switch it to WAL mode if needed: ``switch_in_use`` even if another
        connection uses it. ``DatabaseUnusable``; ``DatabaseBusy``: the switch has to wait.

        ``busy_timeout`` is in seconds. ``mounts`` is the mount table of the kernel.
        """
        self.source = source
        self.path = path = resolved(source)
        self.files = files
        self._timeout = busy_timeout
        _check_permissions(path)
        require_unmounted(path, mounts)
        self.raw: RawFile = database_reader(path, self.files)
        self.switched = False
        self._closed = False
        try:
            self.identity = self.raw.identity()
            self._directory = _inode(path.parent)
            header = self.header()  # before any connection, to recognise a foreign file first
            prepare_side_files(path, files)
            self._checkpointer = self._connect(busy_timeout)
        except BaseException:
            release_database(self.raw)
            raise
        self._locker: sqlite3.Connection | None = None
        self._locking = threading.RLock()  # of the one that wants the write lock
        self._idle_holds: list[Hold] = []
        self._holds: list[Hold] = []
        self.wal = WalFile(wal_path(path), self.files)
        self.index = WalIndex(index_path(path), near=self.raw.fileno())
        try:
            if not header.wal_mode:
                self._switch_to_wal(in_use=switch_in_use)
            self._open_wal()
        except BaseException:
            self.close()
            raise

    def header(self) -> DatabaseHeader:
        """The database file's header on disk."""
        data = self.raw.pread(HEADER_BYTES, 0)
        header = parse_database_header(data)
        if header is None:
            raise not_a_database(self.path)
        return header

    def _connect(self, timeout: float) -> sqlite3.Connection:
        return connect(self.path, timeout=timeout)

    def _switch_to_wal(self, *, in_use: bool) -> None:
        try:
            switch_to_wal(self._checkpointer, self.path, self.raw, in_use=in_use)
        except sqlite3.Error as error:
            raise self._explain(error) from error
        self.switched = True

    def _open_wal(self) -> None:
        """Open the WAL, which SQLite makes if there is none. ``DatabaseReplaced`` if it may belong
        to another file."""
        self._probe()
        self.wal.refresh()
        self.check_identity()

    def _probe(self) -> None:
        try:
            self._checkpointer.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
        except sqlite3.Error as error:
            raise self._explain(error) from error

    def _explain(self, error: sqlite3.Error) -> ReplicatorError:
        found = database_error(self.path, error)
        return exclusive(self.path) if isinstance(found, DatabaseBusy) else found

    def content(self) -> Content:
        """The size and the presence of tables, as of the newest commit."""
        try:
            (pages,) = self._checkpointer.execute("PRAGMA page_count").fetchone()
            (tables,) = self._checkpointer.execute(HAS_TABLES).fetchone()
        except sqlite3.Error as error:
            found = database_error(self.path, error)
            if not isinstance(found, DatabaseUnusable):
                raise found from error
            return Content(0, tables=True)  # a schema that SQLite cannot read is no empty one
        return Content(pages, tables=bool(tables))

    def check_identity(self) -> Stamp:
        """``DatabaseReplaced`` if the path names another file now, or none."""
        found = _stat(self.source)
        if found is None or (found.st_dev, found.st_ino) != self.identity:
            raise DatabaseReplaced(f"{self.source} was replaced or deleted", path=self.source)
        return found.st_mtime_ns, found.st_size

    @property
    def detached(self) -> bool:
        """True if the path names another file now, or none, or the WAL was replaced or removed."""
        try:
            self.check_identity()
        except (DatabaseReplaced, LocalIOError):
            return True
        return self.wal.replaced

    def owns_wal(self) -> bool:
        """True if every frame that the open WAL has is of this file, which was replaced or removed.

        An application that opens the file at :attr:`path` writes to the WAL next to it. That is the
        open one only if the new file came to the same directory. Then the time decides: a file's
        inode changes when its name is taken, and frames that are not older may be of the new file.
        """
        here = _inode(self.path)
        if here is None or here == self.identity or _inode(self.path.parent) != self._directory:
            return True
        written = self.wal.written_ns
        return written is not None and written < os.fstat(self.raw.fileno()).st_ctime_ns

    def open_under_another_name(self) -> bool:
        """True if another process has the database open, and none has its WAL index. A process
        that is just opening or closing the database looks the same."""
        with contextlib.suppress(OSError):
            descriptor = self.raw.fileno()
            return sys.platform.startswith("linux") and (
                locked_by_another(descriptor, SHARED_FIRST, SHARED_SIZE)
                and self.index.used_by_another() is False
            )
        return False

    def alone(self) -> bool:
        """True if no other connection has the database open; False also if that is unknown.

        A lock reveals another process, also one in another namespace. A descriptor reveals
        another connection of this process. SQLite keeps the descriptors of closed connections as
        long as a connection of the process holds a lock, so with such an application in the same
        process the answer stays False.
        """
        if not sys.platform.startswith("linux"):
            return False
        ours = len(self._holds) + (self._locker is not None) + 2  # the checkpointer, raw reads
        try:
            if locked_by_another(self.raw.fileno(), SHARED_FIRST, SHARED_SIZE):
                return False
            # counting takes 30 ms with 500 open databases
            return process.claimed() or count_descriptors(self.identity) == ours
        except OSError:  # for example without a free descriptor
            return False

    def reopen_after_last_close(self) -> None:
        """Close every connection, so that SQLite removes the WAL at the last close, and open the
        database again. Every hold has ended then.

        If another file later replaces the database, SQLite would read a leftover WAL into it.
        Without a replicator, the application's last close removes the WAL. A connection that
        another process opened in the meantime keeps it.
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
        prepare_side_files(self.path, self.files)
        self._checkpointer = self._connect(self._timeout)
        self._open_wal()

    def hold(self) -> Hold:
        """Begin a read transaction; end it with :meth:`release`."""
        if self._idle_holds:
            hold = self._idle_holds.pop()
            hold.begin()
            return hold
        hold = Hold(self.path, timeout=self._timeout)
        self._holds.append(hold)
        hold.begin()
        self.check_identity()  # the connection was opened by the path
        return hold

    def release(self, hold: Hold) -> None:
        """End a hold. Does nothing for one that has ended, or that
        :meth:`reopen_after_last_close` closed."""
        if hold in self._holds and hold not in self._idle_holds:
            hold.end()
            self._idle_holds.append(hold)

    def checkpoint(self) -> Checkpoint:
        """One passive checkpoint. It never waits and blocks no other connection."""
        try:
            row = self._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            raise database_error(self.path, error) from error
        return Checkpoint(busy=bool(row[0]), frames=row[1], copied=row[2])

    @contextlib.contextmanager
    def write_lock(self, *, patience: float) -> Iterator[bool]:
        """Hold the write lock in the block. Yields False if it is not free within ``patience``
        seconds.

        Does not use SQLite's busy handler, whose growing sleeps would lose every race against a
        writer that never pauses. Another thread that calls this waits for the end of the block.
        """
        with self._locking:
            if self._locker is None:
                self._locker = self._connect(timeout=0)
            if self._locker.in_transaction:  # an outer block of this thread holds it
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
                if not isinstance(database_error(self.path, error), DatabaseBusy):
                    raise database_error(self.path, error) from error
                if time.monotonic() >= until:
                    return False
                time.sleep(0.0002)
            else:
                return True

    def close(self) -> None:
        """Close every connection, the holds last; then the raw descriptor, if that is safe."""
        for hold in self._holds:
            hold.end()
        for connection in (self._locker, self._checkpointer):
            if connection is not None:
                connection.close()
        for hold in self._holds:
            hold.close()
        self._holds, self._idle_holds = [], []
        self.wal.close()
        if not self._closed:
            self._closed = True
            release_database(self.raw)


def _check_permissions(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise local_error(error, path) from error
    if not stat.S_ISREG(mode):
        raise not_a_database(path)
    marked = not mode & 0o222  # root can write it anyway, but the mode is deliberate
    if marked or not os.access(path, os.R_OK | os.W_OK) or not os.access(path.parent, os.W_OK):
        raise read_only(path)
