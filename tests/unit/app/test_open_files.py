"""A connection to a file that is no longer the database: its commits are not in the archive."""

import contextlib
import os
import shutil
import sqlite3

import pytest

from replicator import durable, wait_durable
from replicator.app.open_files import OpenFiles
from replicator.errors import DatabaseMissing, DatabaseReplaced
from tests.helpers.errors import raises
from tests.helpers.replication import LONG


@pytest.fixture
def replacement(tmp_path, app):
    """Another database file, a copy of that of the application."""
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as copy:
        app.db.backup(copy)
    return tmp_path / "other.db"


@pytest.mark.parametrize("known", [True, False], ids=["known before", "unknown"])
def test_a_commit_to_a_replaced_file_is_not_confirmed(answered, app, replacement, known):
    """The replicator follows the new file and would confirm that one."""
    if known:
        wait_durable(app.db, timeout=LONG)
    os.replace(replacement, app.path)
    with raises(DatabaseReplaced, path=str(app.path)), durable(app.db, LONG):
        app.insert()


def test_a_moved_file_is_noticed(app, replacement, tmp_path):
    """It is not deleted, but another one has its name; a closed connection is none."""
    files = OpenFiles(app.path)
    assert files.check() == list(identity(app.path))
    app.path.rename(tmp_path / "moved.db")
    with raises(DatabaseMissing):
        files.check()
    shutil.copy(replacement, app.path)
    with raises(DatabaseReplaced):
        files.check()
    with raises(DatabaseReplaced):
        files.check()
    app.close()
    assert files.check() == list(identity(app.path))


@pytest.mark.parametrize("born", [1, 3, None], ids=["the same", "another", "unknown"])
def test_a_new_file_with_the_number_of_a_removed_one_is_another(app, replacement, born):
    """A file system gives it to the next file at once, which may be the new WAL."""
    births = {"now": 1}
    files = OpenFiles(app.path, born=lambda file: born if isinstance(file, int) else births["now"])
    files.check()
    os.replace(replacement, app.path)
    births["now"] = 2
    if born == 3:
        assert files.check() == list(identity(app.path))
    else:
        with raises(DatabaseReplaced):
            files.check()


def test_a_wal_with_the_number_of_a_removed_database_is_none(app, replacement, tmp_path):
    """As after a restore over the database, whose old number the next WAL may get."""
    files = OpenFiles(app.path, born=lambda _: None)
    files.check()
    app.close()
    os.link(app.path, tmp_path / "same number")
    os.replace(replacement, app.path)
    with (tmp_path / "same number").open("wb+", buffering=0) as wal:
        wal.write((0x377F0682).to_bytes(4))
        assert files.check() == list(identity(app.path))


def identity(path):
    facts = os.stat(path)
    return facts.st_dev, facts.st_ino
