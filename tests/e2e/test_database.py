"""`Database` with a replicator: a sidecar process, a bucket in a directory, and the way back."""

import sqlite3
import subprocess
import sys

import pytest

from replicator import SqliteReplicatorConfig, restore
from replicator.app import Database, Migration
from replicator.errors import TargetExists
from tests.helpers import docs
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


def test_the_guide_works_as_it_is_written(tmp_path):
    """Its blocks are one program; all of them run in order, with a sidecar."""
    (tmp_path / "bucket").mkdir()
    page = docs.TOP / "docs/guide/application.md"
    program = "\n".join(block.text for block in docs.blocks(page, "python"))
    done = subprocess.run(
        [sys.executable, "-c", program.replace("/srv/backups", str(tmp_path / "bucket"))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "1.1.0"
    assert done.stdout.splitlines()[-1] == "[('Radia',)]"
    assert (tmp_path / "copy.db").exists()


def names_in(path):
    connection = sqlite3.connect(path)
    try:
        return [name for (name,) in connection.execute(NAMES)]
    finally:
        connection.close()


OTHER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT * FROM users").fetchall()
print("open", flush=True)
sys.stdin.read()
"""


def test_a_migration_is_undone(replicated_config, tmp_path):
    """The state before the run is back; commits since are undone with it, and are still in the
    archive. Not while another process has the database open: it would write to a file without a
    name. Either way the database is open and replicated afterwards."""
    config = replicated_config
    with Database.open(config.db_path, config, preset="production") as db:
        db.migrations([USERS]).apply()
        db.execute(ADD, ("Ada",))
        migrations = db.migrations([USERS, LOSS])
        assert migrations.apply().applied[-1].mark.startswith("before-migration-")
        with subprocess.Popen(
            [sys.executable, "-c", OTHER, db.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as other:
            assert other.stdout.readline() == "open\n"
            with pytest.raises(TargetExists):
                migrations.undo()
            other.communicate("")
        db.queue.execute(ADD, ("Grace",), durable=LONG).result(LONG)
        assert db.fetch_all(NAMES) == [("lost",), ("Grace",)]
        migrations.undo()
        assert db.fetch_all(NAMES) == [("Ada",)]
        assert migrations.status().current == "1.0.0"
        with db.transaction(durable=True, timeout=LONG) as connection:
            connection.execute(ADD, ("Barbara",))
        restore(address=config.address, output=tmp_path / "during.db")
        assert names_in(tmp_path / "during.db") == ["Ada", "Barbara"]
        db.queue.post(ADD, ("Jean",))
    restore(address=config.address, output=tmp_path / "after.db")
    assert names_in(tmp_path / "after.db") == ["Ada", "Barbara", "Jean"]
    names = {path.stem for path in (tmp_path / "bucket").glob("app.db/pins/before-undo-*")}
    restore(address=config.address, output=tmp_path / "given-up.db", at=max(names))
    assert names_in(tmp_path / "given-up.db") == ["lost", "Grace"]
