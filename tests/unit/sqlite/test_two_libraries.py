"""Two SQLite libraries that have one database open in one process are found, and only those."""

import contextlib
import logging
import sqlite3
import subprocess
import sys
import threading
import types
from pathlib import Path

import apsw
import pytest

from replicator.app import Database
from replicator.errors import DatabaseUnusable
from replicator.sqlite.two_libraries import (
    libraries_with,
    refuse_second_library,
    warn_of_two_libraries,
)
from tests.helpers.replication import LONG


@pytest.fixture
def wal_database(closed_db):
    """A database in WAL mode that no connection uses."""
    return closed_db.resolve()


def opened(path):
    """A connection of apsw that closes at the end of its block."""
    return contextlib.closing(apsw.Connection(str(path)))


def standard(path, **options):
    return contextlib.closing(sqlite3.connect(path, **options))


def test_each_library_with_an_open_connection_is_named(wal_database, tmp_path):
    """Not one that has another file open, a closed connection, or a database in memory."""
    with opened(wal_database):
        assert libraries_with(wal_database) == {"apsw"}
        with standard(wal_database):
            assert libraries_with(wal_database) == {"apsw", "sqlite3"}
    with opened(tmp_path / "other.db"), opened(":memory:"), standard(":memory:"):
        assert libraries_with(wal_database) == set()


def test_another_name_of_the_file_is_the_same_file(wal_database, tmp_path):
    """A symbolic link, and an attached database."""
    (tmp_path / "link.db").symlink_to(wal_database)
    with opened(tmp_path / "link.db"):
        assert libraries_with(wal_database) == {"apsw"}
    with opened(":memory:") as connection:
        connection.execute("ATTACH ? AS more", (str(wal_database),))
        assert libraries_with(wal_database) == {"apsw"}


def test_a_file_that_does_not_exist_is_open_nowhere(tmp_path):
    """A first start has no database yet."""
    assert libraries_with(tmp_path / "none.db") == set()


def test_the_kit_refuses_a_file_that_another_library_has_open(wal_database):
    """The error names the library; after its close the kit opens the file."""
    with opened(wal_database), pytest.raises(DatabaseUnusable) as caught:
        Database.open(wal_database)
    assert (caught.value.code, caught.value.path) == ("second_library", str(wal_database))
    assert "apsw" in str(caught.value)
    Database.open(wal_database).close()


def test_one_library_is_neither_refused_nor_warned_of(wal_database, caplog):
    """The application may use any library, as long as it is one."""
    caplog.set_level(logging.WARNING)
    with opened(wal_database):
        warn_of_two_libraries(wal_database)
    with standard(wal_database):
        refuse_second_library(wal_database)
        warn_of_two_libraries(wal_database)
    assert caplog.records == []


def test_two_libraries_are_in_the_log(wal_database, caplog):
    """A handle warns at its start; the application itself opened the file twice."""
    with opened(wal_database), standard(wal_database):
        warn_of_two_libraries(wal_database)
    (record,) = caplog.records
    assert "apsw and sqlite3" in record.getMessage()


class OtherConnection(sqlite3.Connection):
    """A connection as those of pysqlite3 and SQLCipher: the interface of the standard library."""


@pytest.fixture
def pysqlite(monkeypatch):
    """Stands for pysqlite3, whose library is its own."""
    module = types.ModuleType("pysqlite3")
    module.Connection = OtherConnection
    monkeypatch.setitem(sys.modules, "pysqlite3", module)


def test_a_library_with_the_standard_interface_is_found(wal_database, pysqlite):
    """Also with rows that are no tuples."""
    with standard(wal_database, factory=OtherConnection) as connection:
        connection.row_factory = lambda cursor, row: {"file": row[0]}
        assert "pysqlite3" in libraries_with(wal_database)


@contextlib.contextmanager
def opened_by_a_thread(path):
    """A connection that only its thread may use, during the block."""
    ready, over = threading.Event(), threading.Event()

    def hold():
        with standard(path, factory=OtherConnection):
            ready.set()
            over.wait(LONG)

    thread = threading.Thread(target=hold)
    thread.start()
    ready.wait(LONG)
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_connection_of_another_thread_counts_if_the_file_is_open(
    wal_database, pysqlite, tmp_path
):
    """It may not be asked for its files; those of the process decide."""
    with opened_by_a_thread(wal_database):
        assert "pysqlite3" in libraries_with(wal_database)
    with opened_by_a_thread(tmp_path / "other.db"):
        assert "pysqlite3" not in libraries_with(wal_database)


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
