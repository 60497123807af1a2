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


def identity(path):
    facts = os.stat(path)
    return facts.st_dev, facts.st_ino
