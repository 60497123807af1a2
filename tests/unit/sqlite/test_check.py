"""SQLite's checks of a finished file, and the checkpoint of one that is replaced."""

import os
import sqlite3
from pathlib import Path

import pytest

from replicator.errors import DamageError, LocalIOError, ReplicatorError, TargetExists
from replicator.sqlite.check import checkpoint_wal, openers
from replicator.sqlite.integrity import check_database
from replicator.system.paths import side_files
from tests.helpers.errors import raises


@pytest.fixture
def indexed_database(tmp_path):
    """In WAL mode, 100 rows with an index, everything in the file."""
    path = tmp_path / "with space & ü?.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE t(x)")
    connection.execute("CREATE INDEX i ON t(x)")
    connection.executemany("INSERT INTO t VALUES(?)", [(os.urandom(500),) for _ in range(100)])
    connection.close()
    return path


@pytest.mark.parametrize("full", [True, False])
def test_a_good_database_passes_untouched(indexed_database, full):
    """Both checks pass, and create no file next to a database in WAL mode."""
    before = indexed_database.read_bytes()
    check_database(indexed_database, full=full)
    assert indexed_database.read_bytes() == before
    assert os.listdir(indexed_database.parent) == [indexed_database.name]


def test_damage_is_quoted(indexed_database):
    """A page overwritten in the middle is found and quoted."""
    body = bytearray(indexed_database.read_bytes())
    body[4096 * 5 : 4096 * 6] = bytes(4096)
    indexed_database.write_bytes(body)
    for full in (True, False):
        with raises(DamageError, "malformed_database"):
            check_database(indexed_database, full=full)


def test_no_database_is_damage(tmp_path):
    """A file that is no database is a DamageError."""
    path = tmp_path / "x.db"
    path.write_bytes(b"rubbish " * 1000)
    with raises(DamageError, "malformed_database"):
        check_database(path, full=False)


def test_what_cannot_be_checked_is_no_damage(tmp_path):
    """A missing file is an error, but not damage."""
    with raises(ReplicatorError):
        check_database(tmp_path / "missing.db", full=False)


def test_the_checkpoint_keeps_every_row(indexed_database):
    """Rows that are only in the log are in the file afterwards, and the log is gone."""
    connection = sqlite3.connect(indexed_database, isolation_level=None)
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("INSERT INTO t VALUES('new')")
    log = Path(f"{indexed_database}-wal")
    saved = indexed_database.read_bytes(), log.read_bytes()
    connection.close()
    indexed_database.write_bytes(saved[0])
    log.write_bytes(saved[1])
    assert side_files(indexed_database) == [log]
    assert checkpoint_wal(indexed_database)
    assert side_files(indexed_database) == []
    alone = indexed_database.with_name("alone.db")
    alone.write_bytes(indexed_database.read_bytes())
    with sqlite3.connect(alone) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (101,)
    connection.close()


def test_the_checkpoint_refuses_an_open_database(indexed_database):
    """Any other connection that has read is enough."""
    connection = sqlite3.connect(indexed_database)
    connection.execute("SELECT 1 FROM t").fetchone()
    with raises(TargetExists, "target_in_use", path=str(indexed_database)):
        checkpoint_wal(indexed_database)
    connection.close()
    assert checkpoint_wal(indexed_database)


def test_the_checkpoint_leaves_an_unreadable_file(tmp_path):
    """No database: nothing to fold, nothing changed."""
    path = tmp_path / "x.db"
    path.write_bytes(b"rubbish " * 1000)
    assert not checkpoint_wal(path)
    assert path.read_bytes() == b"rubbish " * 1000
    with raises(LocalIOError, path=str(tmp_path / "missing" / "x.db")):
        checkpoint_wal(tmp_path / "missing" / "x.db")


def test_openers_of_nothing(tmp_path):
    """A missing file, and one only this process has open, have no openers."""
    assert openers(tmp_path / "missing") == []
    mine = tmp_path / "mine"
    with mine.open("wb"):
        assert openers(mine) == []
