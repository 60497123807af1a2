"""`transaction(durable=True)`: the block returns when its commit is in the bucket."""

import contextlib
import sqlite3

import pytest

from replicator.app import Database
from replicator.errors import ConfigError, NotDurable, NotRunning
from tests.helpers.errors import raises
from tests.helpers.replication import LONG, restored

ADD = "INSERT INTO t(body) VALUES (?)"


@pytest.fixture
def replicated(answered):
    """The database of `app`, which a replicator of another process, so to speak, follows."""
    with Database.open(answered.config.database) as db:
        yield db


def rows_in_bucket(hooked, directory):
    report, _ = restored(hooked, directory)
    with contextlib.closing(sqlite3.connect(report.output)) as connection:
        return [row for (row,) in connection.execute("SELECT body FROM t ORDER BY id")]


def test_a_durable_transaction_is_in_the_bucket(replicated, hooked, tmp_path):
    """A restore from the bucket alone has it; a plain one is there with the next durable one."""
    with replicated.transaction(durable=True, timeout=LONG) as connection:
        connection.execute(ADD, ("first",))
    assert rows_in_bucket(hooked, tmp_path) == ["first"]
    replicated.execute(ADD, ("second",))
    assert replicated.wait_durable(LONG).txid > 1
    assert rows_in_bucket(hooked, tmp_path) == ["first", "second"]


def test_an_exception_waits_for_nothing(replicated):
    """There is no commit to wait for."""
    with pytest.raises(KeyError), replicated.transaction(durable=True, timeout=0) as connection:
        fail_after(connection)
    assert replicated.fetch_all("SELECT body FROM t") == []


def fail_after(connection):
    connection.execute(ADD, ("never",))
    raise KeyError


def test_other_threads_write_during_the_wait(replicated, hooked):
    """The writer is free while the commit travels to the bucket."""
    written = []

    def write_once(method, key):
        if method == "put" and not written:
            written.append(replicated.execute(ADD, ("another",)).changes)

    hooked.before = write_once
    with replicated.transaction(durable=True, timeout=LONG) as connection:
        connection.execute(ADD, ("first",))
    assert set(written) == {1}


def test_a_commit_that_is_late_is_committed_all_the_same(replicated):
    """`NotDurable` says: do not repeat it. With `degrade`, the block ends without an error."""
    with pytest.raises(NotDurable), replicated.transaction(durable=True, timeout=0) as connection:
        connection.execute(ADD, ("late",))
    with replicated.transaction(durable=True, timeout=0, on_failure="degrade") as connection:
        connection.execute(ADD, ("later",))
    assert replicated.fetch_all("SELECT body FROM t") == [("late",), ("later",)]


def test_a_part_of_a_transaction_cannot_be_durable(replicated):
    """The outer block decides whether it is committed at all."""
    with (
        replicated.transaction(),
        raises(ConfigError, "nested_durable"),
        replicated.transaction(durable=True),
    ):
        pass


def test_without_a_sidecar_nothing_is_done(kit):
    """The error comes before the work, which can then be tried again."""
    with pytest.raises(NotRunning), kit.transaction(durable=True) as connection:
        connection.execute("INSERT INTO users (name) VALUES ('Ada')")
    assert kit.fetch_all("SELECT name FROM users") == []
