"""Sixteen threads read and write at once: no lock reaches the application."""

import sqlite3
import threading

from tests.helpers.replication import LONG
from tests.plugins.scoreboard import effort

THREADS = 16
ADD = "INSERT INTO users (name) VALUES (?)"


def all_at_once(work):
    """Run ``work(number)`` in sixteen threads; their exceptions."""
    failures, ready = [], threading.Barrier(THREADS)

    def run(number):
        ready.wait()
        try:
            work(number)
        except Exception as error:  # noqa: BLE001 - the test compares them
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def test_a_mixed_load_meets_no_lock(kit):
    """Every way to read and to write, from all threads: no error, and every row is there once."""
    rounds = effort(10, 300)

    def work(number):
        for turn in range(rounds):
            kit.execute(ADD, (f"{number}/{turn}/execute",))
            with kit.transaction() as connection:
                before = kit.fetch_value("SELECT count(*) FROM users")
                connection.execute(ADD, (f"{number}/{turn}/block",))
                assert kit.fetch_value("SELECT count(*) FROM users") == before + 1
            kit.queue.post(ADD, (f"{number}/{turn}/post",))
            kit.queue.execute(ADD, (f"{number}/{turn}/future",)).result(LONG)
            with kit.read() as connection:
                first = connection.execute("SELECT count(*) FROM users").fetchone()
                assert connection.execute("SELECT count(*) FROM users").fetchone() == first
            assert kit.fetch_one("SELECT name FROM users WHERE id = 1") is not None

    assert all_at_once(work) == []
    assert kit.queue.drain(LONG)
    assert kit.fetch_value("SELECT count(DISTINCT name) FROM users") == THREADS * rounds * 4
    assert kit.fetch_value("SELECT count(*) FROM users") == THREADS * rounds * 4


def test_other_processes_may_write_too(kit):
    """A foreign writer with short transactions: the threads wait for it, without an error."""
    foreign = sqlite3.connect(kit.path, timeout=LONG, isolation_level=None, check_same_thread=False)

    def write():
        for _ in range(effort(100, 5000)):
            foreign.execute("BEGIN IMMEDIATE")
            foreign.execute(ADD, ("foreign",))
            foreign.execute("COMMIT")

    thread = threading.Thread(target=write)
    thread.start()
    failures = all_at_once(
        lambda number: [kit.execute(ADD, (str(turn),)) for turn in range(effort(5, 100))]
    )
    thread.join()
    foreign.close()
    assert failures == []


def test_more_threads_than_readers(tmp_path):
    """They take turns; a thread never waits for itself."""
    from replicator.app import MINIMAL, Database

    with Database.open(tmp_path / "app.db", preset=MINIMAL) as db:
        db.execute("CREATE TABLE t (x)")

        def work(number):
            for _ in range(effort(20, 500)):
                with db.read() as outer, db.read() as inner:
                    assert outer is inner
                    db.fetch_all("SELECT * FROM t")

        assert all_at_once(work) == []
        assert db.statistics().readers_open <= MINIMAL.readers
        assert db.statistics().readers_free == MINIMAL.readers
