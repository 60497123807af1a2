"""One database of an application: one writer, several readers, and a replicator if configured.

    config = SqliteReplicatorConfig(db_path="app.db", bucket="backups")
    with Database.open("app.db", config) as db:
        db.execute("INSERT INTO users (name) VALUES (?)", ("Ada",))
        with db.transaction(durable=True) as connection:      # returns when it is in the bucket
            connection.execute("UPDATE users SET paid = 1 WHERE name = ?", ("Ada",))

Owns the life of its parts, and the functions that read and write. Refuses use after
:meth:`Database.close`. Every method may be called from any thread.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from replicator.app.batch import Conflict, insert_rows
from replicator.app.blocks import ReadBlock, WriteBlock
from replicator.app.connections import Connections
from replicator.app.group_commit import GroupCommit, GroupedWrite
from replicator.app.hooks import OperationHook, OperationKind
from replicator.app.lifecycle import Lifecycle, RunningOperation
from replicator.app.maintenance import (
    BackupProgress,
    CheckpointResult,
    DatabaseCheck,
    back_up,
    check,
    checkpoint,
    optimize,
)
from replicator.app.migration import Migration
from replicator.app.migrations import Migrations
from replicator.app.pending import QueueLimits
from replicator.app.place import place_of
from replicator.app.presets import Preset, find_preset
from replicator.app.retry import BUSY_RETRIES, Retries, left, within
from replicator.app.single import SingleStatements
from replicator.app.statements import Parameters, Row, Written
from replicator.app.statistics import DatabaseStatistics
from replicator.app.undo import replace_by
from replicator.app.wal import WalMonitor, WalThresholds, size_of
from replicator.app.write_queue import WriteQueue
from replicator.config.database_path import database_path
from replicator.errors import ConfigError
from replicator.sqlite.two_libraries import warn_of_second_library
from replicator.system.paths import expanded, resolved, wal_path

if TYPE_CHECKING:
    from replicator.app.durable import OnFailure
    from replicator.config.settings import SqliteReplicatorConfig
    from replicator.handle.handle import SqliteReplicator
    from replicator.model import Position, RestoreReport

T = TypeVar("T")


class Database:
    """One writer and several readers of a database; made by :meth:`open`.

    >>> with Database.open("kit.db") as db:
    ...     written = db.execute("CREATE TABLE users (name TEXT)")
    ...     written = db.execute("INSERT INTO users VALUES (?)", ("Ada",))
    ...     db.fetch_value("SELECT name FROM users")
    'Ada'
    """

    def __init__(
        self,
        connections: Connections,
        lifecycle: Lifecycle,
        retries: Retries,
        replicator: SqliteReplicator | None,
        limits: QueueLimits,
        thresholds: WalThresholds,
    ) -> None:
        self.path = connections.path
        self.preset = connections.preset
        self.replicator = replicator
        self._connections = connections
        self._lifecycle = lifecycle
        self._retries = retries
        self._single = SingleStatements(connections, lifecycle, retries)
        self.queue = WriteQueue(self, limits)
        self.wal = WalMonitor(wal_path(self.path), thresholds)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        config: SqliteReplicatorConfig | None = None,
        *,
        preset: Preset | str = "default",
        hooks: Sequence[OperationHook] = (),
        retries: Retries = BUSY_RETRIES,
        queue: QueueLimits | None = None,
        wal: WalThresholds | None = None,
    ) -> Self:
        """Open the database, in WAL mode; SQLite creates the file if it does not exist.

        With ``config`` it is replicated from now on until :meth:`close`. ``retries`` is for locks
        of other processes, after the busy timeout of the preset. ``ConfigError`` if ``config`` is
        for another file, or there is no such preset; ``DatabaseUnusable``; the errors of
        :meth:`SqliteReplicator.start`. The log has a warning if the file is open in this process
        and another SQLite library is loaded.
        """
        file = resolved(expanded(database_path(os.fspath(path))))
        warn_of_second_library(file)
        chosen = find_preset(preset)
        replicator = None if config is None else _started(file, config)
        try:
            connections = Connections(file, chosen, retries)
            with connections.writing():
                pass  # opens it: the errors of the file are those of this call
        except BaseException:
            if replicator is not None:
                replicator.stop()
            raise
        return cls(
            connections,
            Lifecycle(hooks),
            retries,
            replicator,
            queue or QueueLimits(),
            wal or WalThresholds(),
        )

    # ---------------------------------------------------------------------------- reading

    def read(self) -> ReadBlock:
        """A block in which all reads see the same state: ``with db.read() as connection``. The
        connection cannot write. ``DatabaseBusy`` (code ``readers_busy``) if no reader is free."""
        return ReadBlock(self._connections, self._lifecycle)

    def fetch_all(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """All rows of a query."""
        return self._single.fetch(sql, parameters, sqlite3.Cursor.fetchall)

    def fetch_one(self, sql: str, parameters: Parameters = ()) -> Row | None:
        """The first row of a query, None if it has none."""
        row: Row | None = self._single.fetch(sql, parameters, sqlite3.Cursor.fetchone)
        return row

    def fetch_value(self, sql: str, parameters: Parameters = ()) -> Any:
        """The first column of the first row, None if there is no row."""
        row = self.fetch_one(sql, parameters)
        return None if row is None else row[0]

    # ---------------------------------------------------------------------------- writing

    def transaction(
        self, *, durable: bool = False, timeout: float = 2.0, on_failure: OnFailure = "raise"
    ) -> WriteBlock:
        """A block that is one transaction: ``with db.transaction() as connection``.

        It is committed at the end of the block, and rolled back if the block raises. With
        ``durable`` the block returns when the commit is in the bucket; ``NotDurable`` if that
        takes longer than ``timeout`` seconds: the commit is safe on this machine, it will be sent,
        and must not be repeated. With ``on_failure="degrade"`` a warning is logged instead.
        ``NotRunning``, before anything is done, if no sidecar replicates the database.
        ``DatabaseBusy`` if another thread does not end its transaction.
        """
        wait = partial(self._waiting, timeout, on_failure) if durable else None
        return WriteBlock(self._connections, self._lifecycle, self._retries, wait)

    def _waiting(self, timeout: float, on_failure: OnFailure) -> Callable[[], None]:
        from replicator.app.durable import Waiting

        return Waiting(place_of(self.path), timeout, on_failure, None).wait

    def write(self) -> WriteBlock:
        """:meth:`transaction` without options."""
        return self.transaction()

    def transact(self, work: Callable[[sqlite3.Connection], T], *, durable: bool = False) -> T:
        """The result of ``work(connection)``, which runs in a transaction."""
        with self.transaction(durable=durable) as connection:
            return work(connection)

    def execute(self, sql: str, parameters: Parameters = ()) -> Written:
        """Run one statement, and commit it, unless this thread has a transaction."""
        return self._single.write(sql, parameters)

    def execute_many(self, sql: str, rows: Iterable[Parameters]) -> int:
        """Run one statement for each row, in one transaction; the number of changed rows."""
        with self.transaction() as connection:
            return connection.executemany(sql, rows).rowcount

    def commit_group(self, writes: Sequence[GroupedWrite]) -> int:
        """Make several writes, in one transaction if possible; the queue uses it."""
        with self._connections.writing() as connection:
            return GroupCommit(connection, self._lifecycle, self._retries).commit(writes)

    def wait_durable(self, timeout: float = 2.0) -> Position:
        """Return when every commit so far is in the bucket: a durable position that contains them.
        ``NotDurable`` after ``timeout`` seconds. A sidecar that starts, or a store that fails for
        a moment, is waited for within this time."""
        from replicator.app.durable import wait_durable

        until = time.monotonic() + timeout
        return within(timeout).run(lambda: wait_durable(self.path, timeout=left(until)))

    # ------------------------------------------------------------------------- maintenance

    def migrations(self, migrations: Sequence[Migration]) -> Migrations:
        """The migrations of this database: their state, ``apply()``, ``undo()``, recovery."""
        return Migrations(self, migrations)

    def insert_many(
        self,
        table: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[Any]],
        *,
        conflict: Conflict = "abort",
    ) -> int:
        """Insert rows in one transaction, see :func:`replicator.app.batch.insert_rows`."""
        with self.transaction() as connection:
            return insert_rows(connection, table, columns, rows, conflict=conflict)

    def backup(
        self,
        target: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        progress: BackupProgress | None = None,
    ) -> Path:
        """Copy the database as it is now to a file, while others write; the path of the file.
        ``progress`` receives pages done and in total. ``TargetExists``, ``LocalIOError``."""
        path = expanded(target).absolute()
        with self.operation("backup", str(path)), self.read() as connection:
            connection.execute("SELECT 1 FROM sqlite_schema").close()  # the state is that of now
            back_up(connection, path, overwrite=overwrite, progress=progress)
        return path

    def check(self, *, quick: bool = False) -> DatabaseCheck:
        """SQLite's check of the file and of the foreign keys; reads all of it, blocks no writer."""
        with self.operation("check", "quick" if quick else "integrity"), self.read() as connection:
            return check(connection, quick=quick)

    def checkpoint(self) -> CheckpointResult:
        """Copy frames of the WAL into the file, as far as no reader needs the older pages."""
        with self.operation("maintenance", "checkpoint"), self.writing() as connection:
            return checkpoint(connection)

    def optimize(self) -> None:
        """Renew the statistics of SQLite's query planner: daily, and after large changes."""
        with self.operation("maintenance", "optimize"), self.writing() as connection:
            optimize(connection)

    def vacuum(self) -> None:
        """Write the file anew without free pages. A replicator sends all of it."""
        with self.operation("maintenance", "vacuum"), self.writing() as connection:
            connection.execute("VACUUM").close()

    def operation(self, kind: OperationKind, text: str) -> RunningOperation:
        """A block that hooks and statistics see as one operation, which a hook may refuse."""
        return self._lifecycle.running(kind, text)

    def writing(self) -> AbstractContextManager[sqlite3.Connection]:
        """The writer outside of a transaction, for statements that SQLite permits there only:
        some pragmas, ``VACUUM``, ``ATTACH``."""
        return self._connections.writing()

    def restore(self, at: str, timeout: float = 30.0) -> RestoreReport:
        """Replace the database by an earlier state of it: a pin's name, a txid, or a time.

        The queue is written, all connections are closed, every commit is made durable, the
        replicator stops, the file is replaced as a whole, and all of it starts again. Use by
        other threads is refused in between (code ``database_closed``). Later commits stay in the
        archive; the restored state follows them as a new transaction. ``TargetExists`` if another
        process has the database open, ``NotDurable`` after ``timeout`` seconds, and the errors of
        :func:`replicator.restore`; the database is unchanged then.
        """
        return replace_by(self, self._connections, at, timeout)

    # ------------------------------------------------------------------------------- life

    def connect(self, *, writes: bool = False) -> sqlite3.Connection:
        """A further connection with the preset, for a library that wants its own. It belongs to
        the caller, who closes it, before a fork too."""
        self._connections.require_usable()
        return self._connections.new(writes=writes)

    def close(self, timeout: float = 30.0) -> None:
        """End everything: write what waits in the queue, refuse new work, wait for the blocks that
        run, close the connections, make every commit durable, and stop the replicator.

        ``timeout`` is in seconds, for each of these. A statement that still runs then is
        interrupted. Every step is made, also after one that failed: ``DatabaseBusy``, with the code
        ``queue_not_drained``, or ``still_used`` if a block does not end; ``NotDurable`` if commits
        did not reach the bucket yet. A second call does nothing.
        """
        replicator, self.replicator = self.replicator, None
        with contextlib.ExitStack() as steps:  # they run from the last to the first
            if replicator is not None:
                steps.callback(replicator.stop)
                steps.callback(replicator.flush, timeout)
            steps.callback(self._connections.close, timeout)
            steps.callback(self.queue.close, timeout)
            steps.callback(self.wal.close)

    def statistics(self) -> DatabaseStatistics:
        """Counts and times since it was opened."""
        readers, figures = self._connections.readers, self.queue.figures
        return DatabaseStatistics(
            operations=self._lifecycle.counts(),
            busy_retries=self._lifecycle.busy_retries,
            readers_open=readers.open,
            readers_free=readers.free,
            queue_waiting=len(self.queue),
            queue_done=figures.done,
            queue_failed=figures.failed,
            queue_refused=figures.refused,
            queue_dropped=figures.dropped,
            queue_commits=figures.commits,
            wal_bytes=size_of(wal_path(self.path)),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _started(file: Path, config: SqliteReplicatorConfig) -> SqliteReplicator:
    from replicator.handle.handle import SqliteReplicator

    if config.database != file:
        raise ConfigError(
            f"the config is for {config.database}, not for {file}",
            setting="db_path",
            hint="open the path of the config",
        )
    replicator = SqliteReplicator(config)
    replicator.start()
    return replicator
