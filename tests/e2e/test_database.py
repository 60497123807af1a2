"""`Database` with a replicator: a sidecar process, a bucket in a directory, and the way back."""

import sqlite3
import subprocess
import sys

import pytest

from replicator import SqliteReplicatorConfig, restore
from replicator.app import Database, Migration
from replicator.errors import TargetExists
from tests.helpers.replication import LONG

ADD = "INSERT INTO users (name) VALUES (?)"
NAMES = "SELECT name FROM users ORDER BY id"
USERS = Migration("1.0.0", "users", "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)")
LOSS = Migration("2.0.0", "a mistake", "UPDATE users SET name = 'lost'")


@pytest.fixture
def replicated_config(tmp_path):
    """A config whose bucket is a directory."""
    (tmp_path / "bucket").mkdir()
    return SqliteReplicatorConfig(db_path=tmp_path / "app.db", url=f"file://{tmp_path}/bucket")


def names_in(path):
    connection = sqlite3.connect(path)
    try:
        return [name for (name,) in connection.execute(NAMES)]
    finally:
        connection.close()


def test_a_database_is_replicated_from_open_to_close(replicated_config, tmp_path):
    """Durable transactions and results of the queue are in the bucket when they return, and
    everything is after close."""
    config = replicated_config
    with Database.open(config.db_path, config, preset="production") as db:
        db.migrations([USERS]).apply()
        with db.transaction(durable=True, timeout=LONG) as connection:
            connection.execute(ADD, ("Ada",))
        db.queue.execute(ADD, ("Grace",), durable=LONG).result(LONG)
        restore(address=config.address, output=tmp_path / "during.db")
        assert names_in(tmp_path / "during.db") == ["Ada", "Grace"]
        db.queue.post(ADD, ("Barbara",))
    restore(address=config.address, output=tmp_path / "after.db")
    assert names_in(tmp_path / "after.db") == ["Ada", "Grace", "Barbara"]


def test_undo_restores_the_state_before_a_migration(replicated_config, tmp_path):
    """Commits since the run are undone with it. The database is replicated again afterwards, and
    the state that was given up is still in the archive."""
    config = replicated_config
    with Database.open(config.db_path, config) as db:
        db.migrations([USERS]).apply()
        db.execute(ADD, ("Ada",))
        migrations = db.migrations([USERS, LOSS])
        mark = migrations.apply().applied[-1].mark
        assert mark.startswith("before-migration-")
        db.execute(ADD, ("Grace",))
        migrations.undo()
        assert db.fetch_all(NAMES) == [("Ada",)]
        assert db.migrations([USERS, LOSS]).status().current == "1.0.0"
        with db.transaction(durable=True, timeout=LONG) as connection:
            connection.execute(ADD, ("Barbara",))
        db.queue.execute(ADD, ("Jean",)).result(LONG)
    restore(address=config.address, output=tmp_path / "after.db")
    assert names_in(tmp_path / "after.db") == ["Ada", "Barbara", "Jean"]
    (name,) = {path.stem for path in (tmp_path / "bucket").glob("app.db/pins/before-undo-*")}
    restore(address=config.address, output=tmp_path / "given-up.db", at=name)
    assert names_in(tmp_path / "given-up.db") == ["lost", "Grace"]


OTHER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT * FROM users").fetchall()
print("open", flush=True)
sys.stdin.read()
"""


def test_a_restore_under_another_process_is_refused(replicated_config):
    """That process would write to a file without a name. The database stays as it is, open and
    replicated."""
    config = replicated_config
    with Database.open(config.db_path, config) as db:
        db.migrations([USERS]).apply()
        db.execute(ADD, ("Ada",))
        db.migrations([USERS, LOSS]).apply()
        other = subprocess.Popen(
            [sys.executable, "-c", OTHER, db.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert other.stdout.readline() == "open\n"
        with pytest.raises(TargetExists):
            db.migrations([USERS, LOSS]).undo()
        other.communicate("")
        with db.transaction(durable=True, timeout=LONG):
            db.execute(ADD, ("Grace",))
        assert db.fetch_all(NAMES) == [("lost",), ("Grace",)]
