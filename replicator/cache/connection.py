"""The open SQLite file of the ledger: statements, transactions, and their errors.

Owns: the connection to ``state.db`` and the translation of SQLite's errors. A content that
cannot be trusted is ``LedgerDamaged``; a full disk is ``DiskFull``; what else the disk refuses
is ``LocalIOError``. Refuses: to know any table.

Not safe to share between threads; the cache holds one lock around it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from replicator.cache.schema import Row, check_sum, insert
from replicator.errors import DiskFull, LedgerDamaged, LocalIOError
from replicator.system.files import Files, about
from replicator.system.paths import wal_path

# Result codes (sqlite.org/rescode.html) that are about the content, not about the disk.
DAMAGE = frozenset(
    {
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_FORMAT,
        sqlite3.SQLITE_SCHEMA,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_CONSTRAINT,
    }
)


class LedgerFile:
    """The open ``state.db``. Every statement passes through ``files.system``."""

    def __init__(self, path: Path, files: Files) -> None:
        """Open or create; ``LedgerDamaged`` when the file is no SQLite database."""
        self.path = path
        self._files = files
        self._paths = (path, wal_path(path))
        self._identities: list[tuple[int, int]] = []
        with self._mapped():
            self._db = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=5.0
            )
        try:
            self.run("PRAGMA journal_mode = WAL")
            self.run("PRAGMA synchronous = FULL")
            self.run("PRAGMA cell_size_check = ON")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._db.close()

    def run(self, sql: str, parameters: Row = ()) -> list[Row]:
        """Runs one statement and returns all its rows."""
        with self._mapped():
            return self._files.system(self._execute, sql, parameters)

    def number(self, sql: str, *parameters: object) -> int:
        """The single number that a query returns; 0 for NULL."""
        return int(self.run(sql, parameters)[0][0] or 0)

    def put(self, table: str, *values: object) -> None:
        """Inserts or replaces one row of a table, with its check."""
        self.run(insert(table, len(values)), (*values, check_sum(values)))

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """One durable commit around the block, or none."""
        self.check_identity()
        self.run("BEGIN IMMEDIATE")
        try:
            yield
            self.run("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            raise

    def remember_identity(self) -> None:
        """From now on the file and its WAL must keep their inodes."""
        with about(self.path):
            self._identities = [_identity(path) for path in self._paths]

    def check_identity(self) -> None:
        """``LedgerDamaged`` if the file or its WAL was removed or replaced: SQLite would accept
        writes to it, but no process could read them."""
        if not self._identities:
            return  # still being opened
        with contextlib.suppress(OSError):
            if [_identity(path) for path in self._paths] == self._identities:
                return
        raise LedgerDamaged(
            f"{self.path}: the ledger was removed or replaced while in use",
            path=self.path,
            code="ledger_replaced",
        )

    def verify(self, values: Row, check: object, name: str) -> None:
        """``LedgerDamaged`` unless ``check`` is the check of the row ``name``."""
        if check_sum(values) != check:
            raise self.damaged(f"{name} does not match its checksum")

    def damaged(self, reason: str) -> LedgerDamaged:
        return _damaged(reason, self.path)

    def _execute(self, sql: str, parameters: Row) -> list[Row]:
        return self._db.execute(sql, parameters).fetchall()

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[None]:
        """Turns SQLite's errors into ours."""
        try:
            with about(self.path):
                yield
        except sqlite3.Error as error:
            raise _translated(error, self.path) from error
        except UnicodeDecodeError as error:  # of SQLite's own message about a damaged schema
            raise self.damaged(str(error)) from error


def read_only(path: Path, sql: str, parameters: Row) -> list[Row]:
    """The rows of one query on a ledger that another process may use. ``LocalIOError``."""
    try:
        with about(path), contextlib.closing(_reader(path)) as reader:
            return reader.execute(sql, parameters).fetchall()
    except sqlite3.Error as error:
        raise _translated(error, path) from error


def _reader(path: Path) -> sqlite3.Connection:
    uri = f"file:{quote(str(path))}?mode=ro"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5.0)


def _translated(error: sqlite3.Error, path: Path) -> LocalIOError:
    # The errors of Python's binding have no code: the use of a closed ledger, or text in a
    # row that is not UTF-8.
    if isinstance(error, sqlite3.ProgrammingError):
        return LedgerDamaged(f"{path}: {str(error).lower()}", path=path)
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    if code & 0xFF in DAMAGE or code == sqlite3.SQLITE_IOERR_SHORT_READ:
        return _damaged(str(error), path)
    kind = DiskFull if code & 0xFF == sqlite3.SQLITE_FULL else LocalIOError
    return kind(f"{path}: {str(error).lower()}", path=path)


def _damaged(reason: str, path: Path) -> LedgerDamaged:
    return LedgerDamaged(f"{path}: the ledger is damaged: {reason}", path=path)


def _identity(path: Path) -> tuple[int, int]:
    """Device and inode."""
    facts = os.lstat(path)
    return facts.st_dev, facts.st_ino
