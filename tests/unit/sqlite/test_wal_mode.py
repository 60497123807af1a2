"""The switch to WAL mode: only of a database in no use, or when asked for."""

import contextlib
import sqlite3

import pytest

from replicator.errors import DatabaseBusy, DatabaseUnusable
from replicator.sqlite.live import LiveDatabase
from replicator.sqlite.wal_mode import switch_to_wal
from replicator.system.database_files import database_reader, release_database
from tests.helpers.errors import raises
from tests.helpers.other_app import OtherApp
from tests.helpers.replication import App

pytestmark = pytest.mark.app(rows=3, mode="DELETE")


def refused(path):
    with raises(DatabaseBusy, "wal_mode_waits", path=str(path)) as caught:
        LiveDatabase(path, busy_timeout=0.05)
    assert "--switch-in-use" in caught.value.hint
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    return str(caught.value)


def test_a_database_in_use_is_not_switched(app):
    """A connection of this process, at rest, learns nothing of a switch; so there is none."""
    assert "this process" in refused(app.path)


def test_a_database_in_use_by_another_process_is_not_switched(app):
    """The message names the process. Once it ends, the switch is made."""
    app.close()
    with OtherApp(app.path) as other:
        other.run("SELECT count(*) FROM t")
        assert f"process {other.process.pid}" in refused(app.path)
    database = LiveDatabase(app.path)
    assert database.switched
    database.close()


def test_a_database_in_use_is_switched_if_that_was_asked_for(app):
    """The connections that are open go on in WAL mode."""
    with OtherApp(app.path) as other:
        database = LiveDatabase(app.path, switch_in_use=True)
        assert database.switched
        assert other.run("PRAGMA journal_mode") == [["wal"]]
        app.insert()
        database.close()


def test_not_even_then_beside_an_open_transaction(app):
    """SQLite refuses; the switch waits, as long as it takes."""
    app.run("BEGIN IMMEDIATE")
    with raises(DatabaseBusy, "wal_mode_waits", path=str(app.path)):
        LiveDatabase(app.path, busy_timeout=0.01, switch_in_use=True)
    app.run("COMMIT")
    LiveDatabase(app.path, switch_in_use=True).close()


def test_what_the_switch_changes_for_the_application(app):
    """The consequence that the log and doctor state: a deferred transaction that read first fails
    at its first write, without waiting, once another connection wrote."""
    LiveDatabase(app.path, switch_in_use=True).close()
    with App(app.path, timeout=1000) as other:
        other.run("BEGIN", "SELECT count(*) FROM t")
        app.insert()
        with pytest.raises(sqlite3.OperationalError) as caught:
            other.insert()
        assert caught.value.sqlite_errorname == "SQLITE_BUSY_SNAPSHOT"


def test_a_file_system_without_shared_memory_keeps_its_mode(app):
    """SQLite then stays in rollback mode, as it does with locks by a file."""
    app.close()
    uri = f"{app.path.as_uri()}?vfs=unix-dotfile"
    raw = database_reader(app.path)
    with (
        contextlib.closing(sqlite3.connect(uri, uri=True)) as connection,
        raises(DatabaseUnusable, "wal_mode_refused", path=str(app.path)),
    ):
        switch_to_wal(connection, app.path, raw, in_use=True)
    release_database(raw, unless_used=True)


def test_an_error_that_is_no_lock_reaches_the_caller(app):
    """A closed connection makes sqlite3 raise its own error."""
    app.close()
    connection = sqlite3.connect(app.path)
    connection.close()
    raw = database_reader(app.path)
    with pytest.raises(sqlite3.ProgrammingError):
        switch_to_wal(connection, app.path, raw, in_use=True)
    release_database(raw, unless_used=True)
