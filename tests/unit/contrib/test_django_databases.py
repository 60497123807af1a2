"""Entries of DATABASES: their options arrive in SQLite, and a restore point refuses writes."""

import contextlib
import sqlite3
import threading

import pytest
from django.db import OperationalError, connections, transaction

from replicator import SqliteReplicator
from replicator.contrib.django import restore_point, sqlite
from replicator.contrib.django.replicated import entry
from tests.helpers.django_project import configured


def pragma(name):
    with connections["default"].cursor() as cursor:
        return cursor.execute(f"PRAGMA {name}").fetchone()[0]


def test_a_connection_has_the_options_of_the_helper(project):
    """As SQLite itself reports them."""
    assert {name: pragma(name) for name in ("journal_mode", "synchronous", "busy_timeout")} == {
        "journal_mode": "wal",
        "synchronous": 1,
        "busy_timeout": 20_000,
    }


def test_options_can_be_changed_one_by_one(project):
    """A pragma, an option of Django, a key of the entry; None leaves a pragma out."""
    made = sqlite(
        project.path,
        timeout=1,
        pragmas={"synchronous": "FULL", "cache_size": None},
        OPTIONS={"transaction_mode": "EXCLUSIVE"},
        CONN_MAX_AGE=60,
    )
    assert made["CONN_MAX_AGE"] == 60
    assert made["OPTIONS"]["transaction_mode"] == "EXCLUSIVE"
    assert "cache_size" not in made["OPTIONS"]["init_command"]
    with configured(**project.settings() | {"DATABASES": {"default": made}}):
        assert pragma("synchronous") == 2


def count_up(errors):
    """Reads, and then writes what it read, in one transaction."""
    try:
        for _ in range(20):
            with transaction.atomic(), connections["default"].cursor() as cursor:
                (value,) = cursor.execute("SELECT x FROM t").fetchone()
                cursor.execute("UPDATE t SET x = %s", [value + 1])
    except OperationalError as error:
        errors.append(error)
    finally:
        connections["default"].close()


def test_transactions_that_read_before_they_write_wait_for_each_other(project):
    """Four threads lose no update, and none gets an error: each transaction begins with the lock
    that it needs later. A deferred one would fail."""
    with connections["default"].cursor() as cursor:
        cursor.execute("CREATE TABLE t AS SELECT 0 AS x")
    errors = []
    threads = [threading.Thread(target=count_up, args=(errors,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with connections["default"].cursor() as cursor:
        assert cursor.execute("SELECT x FROM t").fetchone() == (80,)


# ---------------------------------------------------------------------- a restore point


@pytest.fixture
def archived_project(project):
    """A project with three commits in its bucket, of which the second is marked ``two``."""
    with contextlib.closing(sqlite3.connect(project.path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (x)")
        with SqliteReplicator(entry("default").config()) as replicator:
            connection.execute("INSERT INTO t VALUES (1)")
            replicator.mark("two")
            connection.execute("INSERT INTO t VALUES (2)")
    return project


def values(alias):
    with connections[alias].cursor() as cursor:
        return [x for (x,) in cursor.execute("SELECT x FROM t ORDER BY x").fetchall()]


def test_a_restore_point_has_the_state_of_then_and_refuses_writes(archived_project):
    """It is restored at the first query, and stays as it is after a further one."""
    made = archived_project.settings()
    made["DATABASES"]["then"] = restore_point("default", at="two", max_age=None)
    with configured(**made):
        assert list(archived_project.directory.glob(".shop.db-restored/*.db")) == []
        assert values("then") == [1]
        (copy,) = archived_project.directory.glob(".shop.db-restored/*.db")
        assert (copy.parent.stat().st_mode & 0o777, values("default")) == (0o700, [1, 2])
        for statement in ("INSERT INTO t VALUES (3)", "CREATE TABLE u (x)", "DROP TABLE t"):
            with connections["then"].cursor() as cursor, pytest.raises(OperationalError):
                cursor.execute(statement)
        connections["then"].close()
        before = copy.stat().st_ino
        assert values("then") == [1]
        assert copy.stat().st_ino == before


def test_an_old_copy_is_made_anew(archived_project):
    """After max_age seconds; an open connection continues to read the old one."""
    made = archived_project.settings()
    made["DATABASES"]["then"] = restore_point("default", at="newest", max_age=0)
    with configured(**made):
        assert values("then") == [1, 2]
        with contextlib.closing(sqlite3.connect(archived_project.path)) as connection:
            with connection:
                connection.execute("INSERT INTO t VALUES (3)")
            with SqliteReplicator(entry("default").config()):
                pass
        assert values("then") == [1, 2]
        connections["then"].close()
        assert values("then") == [1, 2, 3]


def test_a_test_run_uses_the_database_itself(project):
    """Django makes the alias a mirror, and nothing is restored: the bucket is empty."""
    made = project.settings()
    made["DATABASES"]["then"] = restore_point("default", at="yesterday")
    with configured(**made):
        assert connections.settings["then"]["TEST"]["MIRROR"] == "default"
        with connections["default"].cursor() as cursor:
            cursor.execute("CREATE TABLE t AS SELECT 7 AS x")
        connections["then"].creation.set_as_test_mirror(connections["default"].settings_dict)
        assert values("then") == [7]
