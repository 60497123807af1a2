"""The connections of an application to one database: one that writes, and those that read.

Each is an ordinary :class:`sqlite3.Connection` in autocommit mode. A thread that has one in use
gets the same one again, so that it reads what it wrote, and never waits for itself.

Owns opening, the lock of the writer, the state of a thread, closing, forks. Refuses use after
:meth:`Connections.close`, and in a child of a fork that happened amid an operation.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from replicator.app import forks
from replicator.app.presets import Preset, prepare
from replicator.app.readers import Readers
from replicator.app.retry import BUSY_RETRIES, Retries
from replicator.errors import DatabaseBusy, DatabaseUnusable, ReplicatorError

QUIET = 1.0  # seconds that a fork waits for the end of an operation


class ThreadState(threading.local):
    """The connections that a thread has in use."""

    reader: sqlite3.Connection | None = None
    writer: sqlite3.Connection | None = None
    depth = 0  # of transactions


class Connections:
    """Of one file. Any thread may use them."""

    def __init__(self, path: Path, preset: Preset, retries: Retries = BUSY_RETRIES) -> None:
        self.path = path
        self.preset = preset
        self.mine = ThreadState()
        self._retries = retries
        self._refusal = ""  # code of the reason why nothing can be used
        self._abandoned: list[object] = []  # of the parent process: closing them would harm it
        self._quiet = False
        self._begin()
        forks.register(self)

    def _begin(self) -> None:
        """The state without a connection."""
        self._lock = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self.readers = Readers(self._new_reader, self.preset.readers, self.preset.wait)

    # ---------------------------------------------------------------------------- opening

    def new(self, *, writes: bool) -> sqlite3.Connection:
        """A connection with the preset, which belongs to the caller. ``DatabaseUnusable`` if
        SQLite cannot open the file, ``DatabaseBusy`` if another process keeps it locked."""
        try:
            return self._retries.run(lambda: self._connect(writes=writes))
        except sqlite3.Error as error:
            raise DatabaseUnusable(f"cannot open {self.path}: {error}", path=self.path) from error

    def _connect(self, *, writes: bool) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path,
            timeout=self.preset.busy_timeout,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=self.preset.cached_statements,
        )
        try:
            if writes:
                _use_wal(connection)
            prepare(connection, self.preset, writes=writes)
        except BaseException:
            connection.close()
            raise
        return connection

    def _new_reader(self) -> sqlite3.Connection:
        return self.new(writes=False)

    # -------------------------------------------------------------------------------- use

    def require_usable(self) -> None:
        """``ReplicatorError`` with the code ``database_closed``, or ``forked``."""
        if self._refusal:
            raise _refused(self.path, self._refusal)

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The writer, outside of a transaction, for this thread alone. ``DatabaseBusy`` (code
        ``writer_busy``) if another thread keeps it for longer than the preset permits."""
        connection = self.take_writer()
        try:
            yield connection
        finally:
            self.give_writer()

    def take_writer(self) -> sqlite3.Connection:
        """Begin the use of the writer in this thread; :meth:`give_writer` ends it."""
        self.require_usable()
        lock = self._lock
        if not lock.acquire(timeout=self.preset.wait):
            raise DatabaseBusy(
                f"another thread has been writing to {self.path} for {self.preset.wait:g} s",
                path=self.path,
                code="writer_busy",
                hint="make transactions shorter, or raise `wait` of the preset",
            )
        try:
            self.require_usable()
            if self._writer is None:
                self._writer = self.new(writes=True)
        except BaseException:
            lock.release()
            raise
        self.mine.writer = self._writer
        return self._writer

    def give_writer(self) -> None:
        self.mine.writer = None
        self._lock.release()

    def take_reader(self) -> sqlite3.Connection:
        """Begin the use of a reader; :meth:`Readers.give` ends it."""
        self.require_usable()
        connection = self.readers.take()
        if self._refusal:
            self.readers.discard(connection)
            self.require_usable()
        return connection

    # -------------------------------------------------------------------------------- end

    def close(self, timeout: float) -> None:
        """Close all connections once they are not in use. After ``timeout`` seconds running
        statements are interrupted; ``DatabaseBusy`` (code ``still_used``) if some stay in use."""
        self._refusal = self._refusal or "database_closed"
        until = time.monotonic() + timeout
        rested = self._close_all(until) or self._interrupt_and_close()
        if not rested:
            raise DatabaseBusy(
                f"connections to {self.path} are still in use",
                path=self.path,
                code="still_used",
                hint="end the blocks that read or write, and close again",
            )

    def reopen(self) -> None:
        """Permit use again after :meth:`close`."""
        self.require_not_forked()
        self._refusal = ""

    def require_not_forked(self) -> None:
        if self._refusal == "forked":
            raise _refused(self.path, self._refusal)

    def _close_all(self, until: float) -> bool:
        if not self._lock.acquire(timeout=max(0.0, until - time.monotonic())):
            return False
        try:
            rested = self.readers.hold(until)
            if rested:
                self.readers.release()
            self._close_writer()  # last: then SQLite copies the WAL into the file
            return rested
        finally:
            self._lock.release()

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _interrupt_and_close(self) -> bool:
        """Interrupt again and again: a thread may be between two statements."""
        end = time.monotonic() + QUIET
        while True:
            self.readers.interrupt()
            if (writer := self._writer) is not None:
                writer.interrupt()
            if self._close_all(time.monotonic() + QUIET / 20):
                return True
            if time.monotonic() > end:
                return False

    # ------------------------------------------------------------------------------ forks

    def before_fork(self) -> None:
        """Close the connections, and let no thread open one until the fork is over."""
        self._quiet = self._hold_all()
        if self._quiet:
            self._close_writer()

    def _hold_all(self) -> bool:
        if self.mine.writer is not None or self.mine.reader is not None:
            return False
        if not self._lock.acquire(timeout=QUIET):
            return False
        if self.readers.hold(time.monotonic() + QUIET):
            return True
        self._lock.release()
        return False

    def after_fork(self, *, child: bool) -> None:
        if child:
            if not self._quiet:
                self._refusal = "forked"
                self._abandoned += [self._writer, self.readers, self.mine]
            self.mine = ThreadState()
            self._begin()
        elif self._quiet:
            self.readers.release()
            self._lock.release()


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch the file to WAL mode, which it keeps."""
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise sqlite3.OperationalError(f"the journal mode stays {mode}")


def _refused(path: Path, code: str) -> ReplicatorError:
    if code == "forked":
        return ReplicatorError(
            f"{path} was in use when this process was forked",
            code="forked",
            hint="fork between operations, or open the database in each process after the fork",
        )
    return ReplicatorError(
        f"{path} was closed", code="database_closed", hint="open the database again"
    )
