"""Durable commits: what a block and a wait promise, on every kind of connection."""

import contextlib
import os
import sqlite3
import sys
import threading

import pytest

import replicator
from replicator import durable, wait_durable
from replicator.errors import ConfigError, NotDurable, NotRunning, ReplicatorError
from replicator.store.memory import MemoryStore
from tests.helpers.control import answering
from tests.helpers.errors import raises
from tests.helpers.replication import LONG, replicating, restored

MODES = {
    "driver begins": {},
    "autocommit": {"isolation_level": None},
    "driver begins immediate": {"isolation_level": "IMMEDIATE"},
}
if sys.version_info >= (3, 12):
    MODES |= {"PEP 249": {"autocommit": False}, "SQLite's": {"autocommit": True}}


@contextlib.contextmanager
def connected(path, **options):
    with contextlib.closing(sqlite3.connect(path, timeout=LONG, **options)) as connection:
        yield connection


def rows_in_bucket(hooked, directory):
    """The rows of ``t`` that a restore from the bucket alone gives."""
    report, _ = restored(hooked, directory)
    with connected(report.output) as connection:
        return [row for (row,) in connection.execute("SELECT body FROM t ORDER BY id")]


@pytest.mark.parametrize("mode", MODES)
def test_a_block_is_in_the_bucket_when_it_ended(answered, hooked, tmp_path, mode):
    """In each mode of the driver: the transaction is whole, committed once, and restorable."""
    with connected(answered.config.database, **MODES[mode]) as connection:
        with durable(connection, LONG) as commit:
            connection.execute("INSERT INTO t(body) VALUES ('a')")
            connection.execute("INSERT INTO t(body) VALUES ('b')")
            assert (commit.position, commit.durable) == (None, False)
        assert commit.durable
        assert commit.position == wait_durable(connection, timeout=LONG)
        assert rows_in_bucket(hooked, tmp_path) == ["a", "b"]


@pytest.mark.parametrize("mode", MODES)
def test_an_exception_rolls_back(answered, mode):
    """The block leaves no row and no transaction, and nothing is waited for."""
    with connected(answered.config.database, **MODES[mode]) as connection:
        with pytest.raises(sqlite3.OperationalError), durable(connection, LONG) as commit:
            _insert_and_fail(connection)
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)
        assert not commit.durable


def _insert_and_fail(connection):
    connection.execute("INSERT INTO t(body) VALUES ('a')")
    connection.execute("nonsense")


def test_an_open_transaction_becomes_the_block(answered, hooked, tmp_path):
    """What the driver began before the block is committed with it."""
    with connected(answered.config.database) as connection:
        connection.execute("INSERT INTO t(body) VALUES ('before')")
        with durable(connection, LONG):
            connection.execute("INSERT INTO t(body) VALUES ('inside')")
        assert rows_in_bucket(hooked, tmp_path) == ["before", "inside"]


def test_a_commit_that_fails_rolls_back(answered):
    """A deferred constraint leaves the transaction open: it must not stay in the way."""
    with connected(answered.config.database, isolation_level=None) as connection:
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("CREATE TABLE child (t REFERENCES t DEFERRABLE INITIALLY DEFERRED)")
        with pytest.raises(sqlite3.IntegrityError), durable(connection, LONG):
            connection.execute("INSERT INTO child VALUES (99)")
        assert not connection.in_transaction


def test_a_block_that_committed_early_still_waits(answered, hooked, tmp_path):
    """executescript() commits on its own; its rows are in the bucket all the same."""
    with connected(answered.config.database) as connection:
        with durable(connection, LONG) as commit:
            connection.executescript("INSERT INTO t(body) VALUES ('a')")
        assert commit.durable
        assert rows_in_bucket(hooked, tmp_path) == ["a"]


def test_a_block_inside_a_block_is_refused(answered):
    """Its end would commit half of the outer one; the outer one is rolled back."""
    with connected(answered.config.database) as connection:
        with raises(ReplicatorError, "nested_block"), durable(connection, LONG):
            connection.execute("INSERT INTO t(body) VALUES ('a')")
            with durable(connection, LONG):
                pass
        with durable(connection, LONG):  # and the next one is not
            assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)


def test_settings_of_the_connection_do_not_matter(answered):
    """A row factory and a text factory of the application."""
    with connected(answered.config.database) as connection:
        connection.row_factory = lambda cursor, row: {"row": row}
        connection.text_factory = lambda data: data.decode().upper()
        with durable(connection, LONG) as commit:
            connection.execute("INSERT INTO t(body) VALUES ('a')")
        assert commit.durable


# ------------------------------------------------------------------------- no confirmation


def test_a_timeout_leaves_the_commit_on_this_machine(answered, app, hooked, tmp_path):
    """NotDurable: the transaction is committed, once, and is sent without a further call."""
    hooked.go_away()
    with connected(app.path) as connection:
        with raises(NotDurable) as caught, durable(connection, 0.05):
            connection.execute("INSERT INTO t(body) VALUES ('a')")
        assert any("do not repeat" in note for note in caught.value.__notes__)
        assert connection.execute("SELECT body FROM t").fetchall() == [("a",)]
        hooked.come_back()
        assert wait_durable(connection, timeout=LONG).txid == answered.status().txid
    assert rows_in_bucket(hooked, tmp_path) == ["a"]


def test_degrade_continues_and_reports(answered, app, hooked, caplog):
    """A warning, the callback, and ``durable`` is False; the error is kept."""
    hooked.go_away()
    seen = []
    with connected(app.path) as connection:
        with durable(connection, 0.05, "degrade", on_degraded=seen.append) as commit:
            connection.execute("INSERT INTO t(body) VALUES ('a')")
        assert connection.execute("SELECT body FROM t").fetchall() == [("a",)]
    assert seen == [commit]
    assert (commit.durable, commit.position, commit.error.code) == (False, None, "not_durable")
    assert [record.levelname for record in caplog.records if "not durable" in record.message] == [
        "WARNING"
    ]


def test_without_a_sidecar_nothing_is_written(app):
    """NotRunning comes before the block."""
    cache = app.path.with_name(".app.db-replicator")
    with raises(NotRunning, path=str(cache)), durable(app.db, LONG):
        raise AssertionError("the block must not run")
    with raises(NotRunning):
        wait_durable(app.path, timeout=LONG)


def test_degrade_works_without_a_sidecar(app):
    """As on the machine of a developer."""
    with durable(app.db, LONG, "degrade") as commit:
        app.insert()
    assert (commit.durable, commit.error.code) == (False, "not_running")
    assert app.db.execute("SELECT count(*) FROM t").fetchone() == (1,)


@pytest.mark.parametrize("name", ["", ":memory:", "file::memory:?cache=shared"])
def test_a_database_that_is_no_file_is_refused(name):
    """Before the block, with every policy."""
    for policy in ("raise", "degrade"):
        with (
            connected(name, uri=True) as connection,
            raises(ConfigError, "not_a_database_path"),
            durable(connection, 1.0, policy),
        ):
            raise AssertionError("the block must not run")


def test_an_unknown_policy_is_refused(app):
    """Before the block."""
    with raises(ConfigError, setting="on_failure"), durable(app.db, 1.0, "ignore"):
        raise AssertionError("the block must not run")


# ----------------------------------------------------------------------------- which one


def test_a_link_and_a_path_find_the_same_sidecar(answered, app, tmp_path):
    """By the file behind symbolic links, as the sidecar does, from a connection, a path, a URL."""
    link = tmp_path / "link.db"
    link.symlink_to(app.path)
    app.insert()
    with connected(link) as connection:
        position = wait_durable(connection, timeout=LONG)
    for name in (link, str(link), app.path, f"sqlite:///{app.path}"):
        assert wait_durable(name, timeout=LONG) == position


def test_a_cache_directory_is_named(app, hooked, tmp_path):
    """A sidecar with a cache elsewhere is found by ``cache_dir``, in the block and outside."""
    cache = tmp_path / "elsewhere"
    with (
        replicating(app.path, hooked, cache_dir=cache) as found,
        answering(found.config.cache, found),
    ):
        with durable(app.db, LONG, cache_dir=cache) as commit:
            app.insert()
        assert commit.position == wait_durable(app.path, timeout=LONG, cache_dir=cache)


def test_the_sidecar_of_another_database_is_refused(answered, tmp_path):
    """Its confirmation would be one about another file."""
    other = tmp_path / "other.db"
    with connected(other, isolation_level=None) as connection:
        connection.execute("CREATE TABLE t (x)")
        with raises(ConfigError, "other_database"):
            wait_durable(connection, timeout=LONG, cache_dir=answered.config.cache)


def test_a_position_of_this_archive(answered, app):
    """A known position is durable after the wait; one that cannot exist is refused."""
    app.insert()
    position = wait_durable(app.db, timeout=LONG)
    assert wait_durable(app.db, position, LONG) == position
    later = replicator.Position(position.generation, position.txid + 1)
    with raises(ConfigError, "unknown_position"):
        wait_durable(app.db, later, LONG)


# ------------------------------------------------------------------------------ in company


def test_waiters_of_a_process_share_requests(answered, app, hooked):
    """Twenty threads that wait while one upload is under way are all in the next one."""
    arrived, release = threading.Event(), threading.Event()

    def slow(method, key):
        if method == "put":
            arrived.set()
            assert release.wait(LONG)

    app.insert()
    wait_durable(app.db, timeout=LONG)
    hooked.before = slow
    puts = len(hooked.keys("put"))
    with connected(app.path, check_same_thread=False) as connection:
        first = threading.Thread(target=_commit, args=(app.path,))
        first.start()
        assert arrived.wait(LONG)
        waiting = threading.Semaphore(0)
        others = [
            threading.Thread(target=_commit, args=(app.path, waiting.release)) for _ in range(20)
        ]
        for other in others:
            other.start()
        for _ in others:
            assert waiting.acquire(timeout=LONG)
        release.set()
        for thread in (first, *others):
            thread.join(LONG)
        count = connection.execute("SELECT count(*) FROM t").fetchone()[0]
    assert count == 22
    assert len(hooked.keys("put")) - puts <= 4  # the first, those that waited, and stragglers


def _commit(path, committed=lambda: None):
    with connected(path, isolation_level=None) as connection:
        connection.execute("INSERT INTO t(body) VALUES ('x')")
        committed()
        wait_durable(connection, timeout=LONG)


def test_writers_of_a_process_queue(answered, app):
    """The writers' blocks come one after another without a poll of SQLite, whose own timeout is
    too short for them here."""
    inside, release = threading.Event(), threading.Event()

    def hold():
        with connected(app.path) as connection, durable(connection, LONG):
            inside.set()
            assert release.wait(LONG)
            connection.execute("INSERT INTO t(body) VALUES ('first')")

    holder = threading.Thread(target=hold)
    holder.start()
    assert inside.wait(LONG)
    with (
        contextlib.closing(sqlite3.connect(app.path, timeout=0)) as hasty,
        pytest.raises(sqlite3.OperationalError),
        durable(hasty, LONG),
    ):
        raise AssertionError("the block must not run")
    threading.Timer(0.05, release.set).start()
    with connected(app.path) as connection, durable(connection, LONG):
        found = connection.execute("SELECT body FROM t").fetchall()
    holder.join(LONG)
    assert found == [("first",)]


def test_a_forked_child_waits_on_its_own(answered, app):
    """The child uses no lock, no thread and no connection of its parent, which has waiters."""
    app.insert()
    wait_durable(app.path, timeout=LONG)
    read, write = os.pipe()
    if not (pid := os.fork()):
        try:
            os.write(write, str(wait_durable(app.path, timeout=LONG).txid).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as answer:
        assert int(answer.read()) == answered.status().durable_txid
    os.waitpid(pid, 0)
    assert wait_durable(app.path, timeout=LONG).txid == answered.status().durable_txid


def test_the_next_sidecar_answers(app, hooked, tmp_path):
    """A kept connection whose sidecar ended is opened again."""
    memory = MemoryStore()
    for _ in range(2):
        with replicating(app.path, memory) as found, answering(found.config.cache, found):
            app.insert()
            assert wait_durable(app.path, timeout=LONG).txid == found.status().durable_txid
