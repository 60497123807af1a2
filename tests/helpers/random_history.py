"""Parts of a random history: an application with several connections, other databases that replace
its own, and a reader of database images that uses neither SQLite nor locks.
"""

import contextlib
import os
import sqlite3
import time
from pathlib import Path

from tests.helpers.bucket import plain_state
from tests.helpers.replication import LONG

ROWS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT {} FROM n"
)


class ImageReader:
    """Reads the committed database without SQLite and without any lock.

    A descriptor of the database is closed only when nothing else has the file open: closing it
    would drop every lock that this process has on it.
    """

    def __init__(self, path):
        self.path, self._open = path, {}

    def image(self):
        inode = os.stat(self.path).st_ino
        if inode not in self._open:
            self._open[inode] = os.open(self.path, os.O_RDONLY)
        data = os.pread(self._open[inode], os.fstat(self._open[inode]).st_size, 0)
        log = Path(f"{self.path}-wal")
        return plain_state(data, log.read_bytes() if log.exists() else b"")

    def close(self):
        for descriptor in self._open.values():
            os.close(descriptor)


class ApplicationConnections:
    """Connections to one database. It ignores errors that SQLite raises without a replicator."""

    def __init__(self, path):
        self.path = path
        self.connections = []
        self.reader = None

    def connection(self, n=0):
        if not self.connections:
            self.open()
        return self.connections[n % len(self.connections)]

    def open(self, page_size=4096):
        """Opens one more connection. SQLite may fail on files that another connection of this
        process deletes at the same time, so it retries."""
        for _ in range(1000):
            db = sqlite3.connect(self.path, isolation_level=None, timeout=LONG)
            with contextlib.suppress(sqlite3.OperationalError):
                for pragma in (
                    f"page_size={page_size}",
                    "journal_mode=WAL",
                    "synchronous=OFF",
                    "cache_size=10",
                    "wal_autocheckpoint=20",
                    "busy_timeout=20",
                ):
                    db.execute(f"PRAGMA {pragma}").fetchall()
                db.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, body BLOB)")
                self.connections.append(db)
                return
            db.close()
            time.sleep(0.01)
        raise AssertionError("the database could not be opened")

    def run(self, db, *statements):
        """True unless another connection held a lock."""
        try:
            for statement in statements:
                db.execute(statement).fetchall()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            return False
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
        return True

    def close(self):
        """Closes all connections, also the last one, so that SQLite may remove the WAL."""
        for db in [*self.connections, *([self.reader] if self.reader else [])]:
            db.close()
        self.connections, self.reader = [], None


def other_database(path, rng, page_size, mode):
    """Another database, with rows of its own."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"PRAGMA page_size={page_size}")
        db.execute(f"PRAGMA journal_mode={mode}").fetchall()
        db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB)")
        db.execute("INSERT INTO t(body) " + ROWS.format(rng.randint(1, 60), "randomblob(500)"))
