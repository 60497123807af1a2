"""A second SQLite library in the process of an application."""

import contextlib
import logging
import sqlite3
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from replicator.app import Database
from replicator.sqlite.two_libraries import warn_of_second_library


@pytest.fixture
def wal_database(closed_db):
    """A database in WAL mode that no connection uses."""
    return closed_db.resolve()


def opened(path):
    """A connection of apsw that closes at the end of its block."""
    return contextlib.closing(apsw.Connection(str(path)))


def test_the_kit_warns_if_a_second_library_may_have_the_file_open(wal_database, tmp_path, caplog):
    """It names the library; a file that is not open, or under another name, is told apart."""
    caplog.set_level(logging.WARNING)
    (tmp_path / "link.db").symlink_to(wal_database)
    with opened(tmp_path / "other.db"):
        warn_of_second_library(wal_database)
    warn_of_second_library(tmp_path / "none.db")
    assert caplog.records == []
    with opened(tmp_path / "link.db"):
        Database.open(wal_database).close()
    (record,) = caplog.records
    assert "and apsw is loaded" in record.getMessage()


def test_the_standard_library_alone_is_no_reason(wal_database, caplog, monkeypatch):
    """The application may open the file as often as it likes with one library."""
    monkeypatch.delitem(sys.modules, "apsw")
    with contextlib.closing(sqlite3.connect(wal_database)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
        warn_of_second_library(wal_database)
    assert caplog.records == []


PROGRAM = """
import sys
events = []
path, bucket = sys.argv[1:]
names = (path, path + "-wal", path + "-shm")
def seen(event, arguments):
    if event in ("open", "sqlite3.connect") and str(arguments[0]) in names:
        events.append((event, arguments[0]))
sys.addaudithook(seen)
import apsw
from replicator import SqliteReplicator, SqliteReplicatorConfig, wait_durable
from replicator.app.state import status_of
connection = apsw.Connection(path)
with SqliteReplicator(SqliteReplicatorConfig(db_path=path, url=bucket)) as replicator:
    connection.execute("INSERT INTO t VALUES (1)")
    position = wait_durable(path, timeout=60)
    replicator.mark("here", 60)
    replicator.snapshot(60)
    assert status_of(path).durable_txid >= position.txid
print(events)
import sqlite3
sqlite3.connect(path).close()
open(path, "rb").close()
print(len(events))
"""


def test_nothing_of_ours_opens_the_database_in_the_application(wal_database, tmp_path):
    """An application that uses apsw alone, with a handle and durable commits: Python opened none of
    the files and no connection of the standard library, so no lock of apsw can be lost."""
    (tmp_path / "bucket").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, wal_database, f"file://{tmp_path}/bucket"],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n2\n"  # and the hook would have seen either
