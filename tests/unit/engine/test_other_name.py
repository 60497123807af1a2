"""The application has the database open under another name: its commits are not seen here."""

import os
import subprocess
import sys

import pytest

from replicator.capture.other_name import OtherName
from replicator.errors import DatabaseUnusable
from replicator.sqlite.live import LiveDatabase
from tests.helpers.errors import raises
from tests.helpers.replication import LONG, App, replicating, wait_for

AT_ONCE = {"session": {"other_name_patience": 0.0}}
KEEPS_OPEN = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("INSERT INTO t(body) VALUES (1)")
connection.commit()
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def opened_elsewhere():
    """Opens a database in processes that keep it open and have one commit; they end with the
    test, or by the function that each call returns."""
    running = []

    def opened(path):
        process = subprocess.Popen(
            [sys.executable, "-c", KEEPS_OPEN, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        running.append(process)
        assert process.stdout.readline() == b"ready\n"
        return lambda: process.communicate(b"\n")

    yield opened
    for process in running:
        if process.poll() is None:
            process.communicate(b"\n")


@pytest.fixture
def other_name(tmp_path, path):
    """A second name of the database, which has a WAL of its own."""
    with App(path) as app:
        app.insert(5)
    os.link(path, tmp_path / "other.db")
    return tmp_path / "other.db"


def test_a_database_open_under_another_name_is_a_failure_while_it_lasts(
    path, other_name, store, opened_elsewhere, caplog
):
    """The commit through the other name is not captured: status and flush must not be good."""
    with replicating(path, store, limits=AT_ONCE) as replicator:
        replicator.flush(LONG)
        close = opened_elsewhere(other_name)
        wait_for(lambda: not replicator.status().healthy)
        with raises(DatabaseUnusable, code="other_name", path=str(path)):
            replicator.flush(LONG)
        assert "another name" in replicator.status().last_error
        close()
        wait_for(lambda: replicator.status().healthy)
        replicator.flush(LONG)
    assert caplog.text.count("under another name") == 1


def test_a_database_open_under_its_own_name_is_fine(path, other_name, store, opened_elsewhere):
    """Also next to one of another name, which the locks then hide."""
    with replicating(path, store, limits=AT_ONCE) as replicator:
        opened_elsewhere(path)
        replicator.flush(LONG)
        assert replicator.status().healthy


def test_the_sign_has_to_last(path, other_name, opened_elsewhere):
    """A process that opens or closes the database gives it for an instant."""
    database, now = LiveDatabase(path), [0.0]
    looks = OtherName(database, 10.0, clock=lambda: now[0])
    close = opened_elsewhere(other_name)
    assert looks.look() is None
    now[0] = 9.9
    assert looks.look() is None
    now[0] = 10.0
    assert looks.look().code == "other_name"
    close()
    assert looks.look() is None
    opened_elsewhere(other_name)
    assert looks.look() is None
    database.close()
