"""Retries: of locks that another process holds, and of a store that does not answer."""

import sqlite3
import threading

import pytest

from replicator.app import MINIMAL, Database
from replicator.app.retry import Retries, is_busy, is_transient
from replicator.errors import ConfigError, NotRunning, StoreUnavailable
from replicator.store.retry import RetryPolicy

IMPATIENT = Retries(RetryPolicy(0.001, 0.001, deadline=0.01))


def busy():
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY_SNAPSHOT
    return error


class Clock:
    """Time that passes in pauses only."""

    def __init__(self):
        self.time = 0.0
        self.pauses = []

    def now(self):
        return self.time

    def pause(self, seconds):
        self.pauses.append(seconds)
        self.time += seconds


def retries(clock, **options):
    return Retries(
        RetryPolicy(1.0, 4.0, deadline=20.0),
        pause=clock.pause,
        now=clock.now,
        chance=lambda: 1.0,
        **options,
    )


def test_work_is_repeated_until_it_succeeds():
    """With pauses that grow to a limit."""
    clock, failures, repeated = Clock(), [busy() for _ in range(5)], []

    def work():
        if failures:
            raise failures.pop()
        return "done"

    assert retries(clock).run(work, lambda: repeated.append(1)) == "done"
    assert clock.pauses == [1.0, 2.0, 4.0, 4.0, 4.0]
    assert len(repeated) == 5


def test_the_last_error_is_raised_when_the_time_is_over():
    """The caller learns what kept it busy."""
    clock = Clock()
    with pytest.raises(sqlite3.OperationalError):
        retries(clock).run(lambda: (_ for _ in ()).throw(busy()))
    assert clock.time > 20.0


def test_only_transient_failures_are_repeated():
    """Any other error is raised at once."""
    assert is_busy(busy())
    assert not is_busy(sqlite3.OperationalError("no such table"))
    assert is_transient(StoreUnavailable("no answer"))
    assert is_transient(NotRunning("no sidecar"))
    assert not is_transient(ConfigError("wrong"))
    clock = Clock()
    with pytest.raises(ConfigError):
        retries(clock, again=is_transient).run(lambda: (_ for _ in ()).throw(ConfigError("wrong")))
    assert clock.pauses == []


@pytest.fixture
def locked(tmp_path):
    """A database that another connection keeps locked, and that connection."""
    import dataclasses

    preset = dataclasses.replace(MINIMAL, busy_timeout=0.01)
    with Database.open(tmp_path / "app.db", preset=preset, retries=Retries()) as db:
        db.execute("CREATE TABLE t (x)")
        other = sqlite3.connect(db.path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        yield db, other
        other.close()


def test_a_lock_that_ends_is_no_error(locked):
    """Beyond the busy timeout, a statement and a transaction wait for the other process."""
    db, other = locked
    threads = [
        threading.Thread(target=db.execute, args=("INSERT INTO t VALUES (1)",)),
        threading.Thread(
            target=db.transact, args=(lambda c: c.execute("INSERT INTO t VALUES (2)"),)
        ),
    ]
    for thread in threads:
        thread.start()
    while db._lifecycle.busy_retries < 2:
        pass
    other.rollback()
    for thread in threads:
        thread.join()
    assert db.fetch_value("SELECT sum(x) FROM t") == 3


def test_a_lock_that_stays_is_an_error_after_the_time(locked):
    """It is SQLite's own, and the writer is free for the next operation."""
    db, other = locked
    db._single._retries = IMPATIENT
    with pytest.raises(sqlite3.OperationalError) as failure:
        db.execute("INSERT INTO t VALUES (1)")
    assert is_busy(failure.value)
    other.rollback()
    db.execute("INSERT INTO t VALUES (1)")
