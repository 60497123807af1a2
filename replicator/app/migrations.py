"""Runs the migrations of a database, each in a transaction of its own with its row of the history.

Before a run, the state of the database gets a name in the bucket, so that the run can be undone.

Owns the table ``schema_migrations``, the run, undo, and the helpers for recovery. Refuses to run
two at a time: a second process finds the work done.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from replicator.app.migration import (
    AppliedMigration,
    Migration,
    MigrationStatus,
    ordered,
    plan,
    version_key,
)
from replicator.app.quoting import statements
from replicator.errors import MigrationError
from replicator.system.clock import now_ms

if TYPE_CHECKING:
    from replicator.app.database import Database
    from replicator.model import RestoreReport

MAKE = """
    CREATE TABLE IF NOT EXISTS schema_migrations (
        version TEXT PRIMARY KEY, description TEXT NOT NULL, kind TEXT NOT NULL,
        checksum TEXT NOT NULL, applied_at INTEGER NOT NULL, seconds REAL NOT NULL,
        mark TEXT NOT NULL
    ) WITHOUT ROWID
"""
EXISTS = "SELECT 1 FROM sqlite_schema WHERE name = 'schema_migrations'"
READ = """
    SELECT version, description, kind, checksum, applied_at, seconds, mark FROM schema_migrations
"""
ADD = "INSERT INTO schema_migrations VALUES (?, ?, ?, ?, ?, ?, ?)"
MARK_TIMEOUT = 60.0  # seconds until the mark is in the bucket


class Migrations:
    """Of one database; made by :meth:`Database.migrations`."""

    def __init__(self, database: Database, migrations: Sequence[Migration]) -> None:
        self._database = database
        self.known = ordered(migrations)

    # ------------------------------------------------------------------------------- state

    def status(self) -> MigrationStatus:
        """The version of the database, its history, and the migrations that it needs. The errors
        of :func:`replicator.app.migration.plan`."""
        with self._database.read() as connection:
            return self._status(connection)

    def _status(self, connection: sqlite3.Connection) -> MigrationStatus:
        applied = _history(connection)
        current = applied[-1].version if applied else ""
        return MigrationStatus(current, applied, plan(self.known, applied))

    # --------------------------------------------------------------------------------- run

    def apply(self, *, mark: bool = True) -> MigrationStatus:
        """Run all migrations that are pending, and return the state after it.

        With a replicator, the state before the run is marked first, and is in the bucket then;
        ``NotDurable`` if that takes more than 60 s, and nothing was run. ``MigrationError`` (code
        ``migration_failed``) if one fails: it is rolled back, those before it stay.
        """
        status = self.status()
        if not status.pending:
            return status
        name = self._mark("before-migration") if mark else ""
        while pending := self.status().pending:
            self._run(pending[0], name)
        return self.status()

    def _mark(self, prefix: str) -> str:
        """The name of the state now, "" without a replicator."""
        replicator = self._database.replicator
        if replicator is None:
            return ""
        name = f"{prefix}-{now_ms()}-{secrets.token_hex(3)}"
        replicator.mark(name, MARK_TIMEOUT, note="made by replicator.app")
        return name

    def _run(self, migration: Migration, mark: str) -> None:
        text = f"{migration.version} {migration.description}"
        with (
            self._database.operation("migration", text),
            self._database.writing() as connection,
            _foreign_keys(connection, on=migration.foreign_keys),
            self._database.transaction(),
        ):
            connection.execute(MAKE)
            if migration in self._status(connection).pending:  # no other process was faster
                self._steps(connection, migration, mark)

    def _steps(self, connection: sqlite3.Connection, migration: Migration, mark: str) -> None:
        began = time.perf_counter()
        try:
            _take_steps(connection, migration)
            _require_foreign_keys(connection, migration)
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise MigrationError(
                f"migration {migration.version} failed: {error}",
                version=migration.version,
                code="migration_failed",
                hint="nothing of it is in the database; correct it, and run again",
            ) from error
        kind = "baseline" if migration.baseline else "incremental"
        seconds = time.perf_counter() - began
        row = (migration.version, migration.description, kind, migration.checksum)
        connection.execute(ADD, (*row, now_ms(), seconds, mark))

    # -------------------------------------------------------------------------------- undo

    def undo(self) -> RestoreReport:
        """Restore the database as it was before the last run; see :meth:`Database.restore`.

        Everything that was committed since is undone with it, and stays in the archive: the state
        that is given up is marked too, as ``before-undo-…``. ``MigrationError`` (code
        ``migration_not_marked``) if the last run has no mark.
        """
        applied = self.status().applied
        mark = applied[-1].mark if applied else ""
        if not mark or self._database.replicator is None:
            raise MigrationError(
                "the last run of migrations has no mark",
                version=applied[-1].version if applied else "",
                code="migration_not_marked",
                hint="a run has a mark if the database has a replicator; restore by --timestamp",
            )
        with self._database.operation("undo", mark):
            self._mark("before-undo")
            return self._database.restore(mark)

    # ---------------------------------------------------------------------------- recovery

    def adopt(self, version: str, description: str = "adopted") -> None:
        """Enter a version into an empty history: the database has this schema already, from
        before it had migrations. Nothing is run. ``MigrationError`` (code ``migration_order``) if
        there is a history."""
        version_key(version)
        with self._changing() as connection:
            if _history(connection):
                raise MigrationError(
                    "the database has a history of migrations already",
                    version=version,
                    code="migration_order",
                )
            connection.execute(ADD, (version, description, "adopted", "", now_ms(), 0.0, ""))

    def accept(self, version: str) -> None:
        """Take the checksum that an applied migration has now, after a change that is harmless,
        such as a comment. ``MigrationError`` (code ``migration_missing``) if the program or the
        history does not have it."""
        with self._changing() as connection:
            kinds = [each.kind for each in _history(connection) if each.version == version]
            found = [
                each
                for each in self.known
                if each.version == version and each.baseline == ("baseline" in kinds) and kinds
            ]
            if not found:
                raise _missing(version)
            connection.execute(
                "UPDATE schema_migrations SET checksum = ? WHERE version = ?",
                (found[0].checksum, version),
            )

    def forget(self, version: str) -> None:
        """Remove the newest version from the history, after its changes were undone by hand; it is
        pending then. ``MigrationError`` (code ``migration_missing``) if it is not the newest."""
        with self._changing() as connection:
            applied = _history(connection)
            if not applied or applied[-1].version != version:
                raise _missing(version)
            connection.execute("DELETE FROM schema_migrations WHERE version = ?", (version,))

    @contextlib.contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._database.transaction() as connection:
            connection.execute(MAKE)
            yield connection


def _history(connection: sqlite3.Connection) -> tuple[AppliedMigration, ...]:
    """By version; empty if there is no table."""
    if connection.execute(EXISTS).fetchone() is None:
        return ()
    found = [AppliedMigration(*row) for row in connection.execute(READ).fetchall()]
    return tuple(sorted(found, key=lambda each: version_key(each.version)))


def _take_steps(connection: sqlite3.Connection, migration: Migration) -> None:
    if isinstance(migration.steps, str):
        for statement in statements(migration.steps):
            connection.execute(statement).close()
    else:
        migration.steps(connection)
    if not connection.in_transaction:
        raise sqlite3.OperationalError("it ended the transaction in which it runs")


def _require_foreign_keys(connection: sqlite3.Connection, migration: Migration) -> None:
    if migration.foreign_keys:
        return
    rows = connection.execute("PRAGMA foreign_key_check").fetchall()
    if rows:
        raise sqlite3.IntegrityError(f"{len(rows)} rows refer to a row that does not exist")


@contextlib.contextmanager
def _foreign_keys(connection: sqlite3.Connection, *, on: bool) -> Iterator[None]:
    """Enforce foreign keys or not during a block; SQLite permits the change outside of
    transactions only."""
    (before,) = connection.execute("PRAGMA foreign_keys").fetchone()
    if before:
        connection.execute(f"PRAGMA foreign_keys = {int(on)}")
    try:
        yield
    finally:
        if before:
            connection.execute("PRAGMA foreign_keys = 1")


def _missing(version: str) -> MigrationError:
    return MigrationError(
        f"migration {version} is not there", version=version, code="migration_missing"
    )
