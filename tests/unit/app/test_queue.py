"""The queue of writes: policies, results, and one commit for many writes."""

import asyncio
import sqlite3
import threading
from collections import deque
from concurrent.futures import CancelledError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.app import Database, QueueLimits, RefuseWrites
from replicator.app.pending import Pending
from replicator.errors import (
    ConfigError,
    DatabaseBusy,
    NotDurable,
    QueueFull,
    RefusedError,
    ReplicatorError,
)
from tests.helpers.errors import raises
from tests.helpers.replication import LONG

ADD = "INSERT INTO users (name) VALUES (?)"
NAMES = "SELECT name FROM users ORDER BY id"


def names(kit):
    return [name for (name,) in kit.fetch_all(NAMES)]


class Held:
    """Keeps the thread of the queue busy until the end of the block."""

    def __init__(self, kit):
        self.kit, self.begun, self.end = kit, threading.Event(), threading.Event()

    def __enter__(self):
        self.future = self.kit.queue.submit(self.work)
        assert self.begun.wait(LONG)
        return self

    def work(self, connection):
        self.begun.set()
        assert self.end.wait(LONG)

    def __exit__(self, *_):
        self.end.set()
        self.future.result(LONG)


# --------------------------------------------------------------------------- policies


@given(
    st.integers(1, 4),
    st.sampled_from(["reject", "drop_oldest"]),
    st.lists(st.one_of(st.just("put"), st.integers(1, 5))),
)
def test_a_queue_is_a_bounded_list(capacity, overflow, steps):
    """Whatever is put and taken: first in, first out, at most the capacity waits, and the policy
    decides which one is given up."""
    pending, model = Pending(QueueLimits(capacity=capacity, overflow=overflow)), deque()
    for number, step in enumerate(steps, 1):
        if step != "put":
            taken = [item for _, item in pending.take(step, 0)]
            assert taken == [model.popleft() for _ in range(min(step, len(model)))]
        elif len(model) < capacity:
            assert pending.put(number) is None
            model.append(number)
        elif overflow == "reject":
            with raises(QueueFull, capacity=capacity):
                pending.put(number)
        else:
            assert pending.put(number) == model.popleft()
            model.append(number)
        assert len(pending) == len(model) <= capacity


def test_block_waits_for_room():
    """The policy of the default: the caller is as fast as the disk."""
    pending = Pending(QueueLimits(capacity=1))
    pending.put("first")
    thread = threading.Thread(target=pending.put, args=("second",))
    thread.start()
    assert pending.take(1, LONG) == [(1, "first")]
    assert pending.take(1, LONG) == [(2, "second")]
    thread.join()


def test_block_with_a_timeout_gives_up():
    """`QueueFull` after the time; nothing was added."""
    pending = Pending(QueueLimits(capacity=1, timeout=0.01))
    pending.put("first")
    with raises(QueueFull, capacity=1):
        pending.put("second")
    assert pending.take(2, 0) == [(1, "first")]


def test_a_caller_that_waits_learns_of_the_end():
    """It is not left waiting for a room that never comes."""
    pending = Pending(QueueLimits(capacity=1))
    pending.put("first")
    failures = []

    def put():
        try:
            pending.put("second")
        except ReplicatorError as error:
            failures.append(error.code)

    thread = threading.Thread(target=put)
    thread.start()
    pending.close()
    thread.join()
    assert failures == ["database_closed"]


@pytest.mark.parametrize("wrong", [{"overflow": "lose"}, {"capacity": 0}, {"batch": 0}])
def test_limits_that_cannot_work_are_refused(wrong):
    """When they are made."""
    with pytest.raises(ConfigError):
        QueueLimits(**wrong)


@pytest.fixture
def small(tmp_path):
    """Opens a database whose queue has room for two writes, with a policy."""
    found = []

    def open_small(**limits):
        kit = Database.open(tmp_path / "app.db", queue=QueueLimits(capacity=2, **limits))
        kit.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
        found.append(kit)
        return kit

    yield open_small
    for each in found:
        each.close()


def test_reject_refuses_the_newest(small):
    """The others are written."""
    kit = small(overflow="reject")
    with Held(kit):
        kit.queue.post(ADD, ("a",))
        kit.queue.post(ADD, ("b",))
        with raises(QueueFull, capacity=2):
            kit.queue.post(ADD, ("c",))
    assert kit.queue.drain(LONG)
    assert names(kit) == ["a", "b"]
    assert kit.statistics().queue_refused == 1


def test_drop_oldest_gives_up_the_oldest(small):
    """Its future has the reason; the newest two are written."""
    kit = small(overflow="drop_oldest")
    with Held(kit):
        lost = kit.queue.execute(ADD, ("a",))
        kit.queue.post(ADD, ("b",))
        kit.queue.post(ADD, ("c",))
        with raises(QueueFull, "queue_dropped"):
            lost.result(LONG)
    assert kit.queue.drain(LONG)
    assert names(kit) == ["b", "c"]
    assert kit.statistics().queue_dropped == 1


# ---------------------------------------------------------------------------- results


def test_fire_and_forget(kit, caplog):
    """`post` returns at once. A failure is in the log and in the statistics."""
    kit.queue.post(ADD, ("Ada",))
    kit.queue.post(ADD, (None,))
    assert kit.queue.drain(LONG)
    assert names(kit) == ["Ada"]
    assert "NOT NULL" in caplog.text
    found = kit.statistics()
    assert (found.queue_done, found.queue_failed, found.queue_waiting) == (1, 1, 0)


def test_a_result_can_be_awaited(kit):
    """By a thread, and in asyncio."""
    assert kit.queue.execute(f"{ADD} RETURNING id", ("Ada",)).result(LONG).rows == [(1,)]
    assert kit.queue.submit(lambda c: c.execute(NAMES).fetchall()).result(LONG) == [("Ada",)]

    async def add():
        return await asyncio.wrap_future(kit.queue.execute(ADD, ("Grace",)))

    assert asyncio.run(add()).changes == 1
    assert names(kit) == ["Ada", "Grace"]


def test_the_result_comes_after_the_commit(kit):
    """Another connection sees the row then."""
    own = kit.connect()
    kit.queue.execute(ADD, ("Ada",)).result(LONG)
    assert own.execute(NAMES).fetchall() == [("Ada",)]
    own.close()


def test_a_write_can_be_cancelled_while_it_waits(kit):
    """It is not made."""
    with Held(kit):
        future = kit.queue.execute(ADD, ("Ada",))
        assert future.cancel()
    with pytest.raises(CancelledError):
        future.result(LONG)
    assert kit.queue.drain(LONG)
    assert names(kit) == []


def test_a_durable_result_comes_when_it_is_in_the_bucket(answered, hooked):
    """All writes of the group share one wait; one that is late has `NotDurable`."""
    with Database.open(answered.config.database) as kit:
        add = "INSERT INTO t(body) VALUES ('x')"
        futures = [kit.queue.execute(add, durable=LONG) for _ in range(5)]
        assert [each.result(LONG).changes for each in futures] == [1] * 5
        assert hooked.keys("put")
        late = kit.queue.execute(add, durable=0.0)
        with pytest.raises(NotDurable):
            late.result(LONG)
        assert kit.fetch_value("SELECT count(*) FROM t") == 6


# ----------------------------------------------------------------------- group commit


def test_writes_that_wait_share_a_commit(kit):
    """Statements and functions: one transaction for all that came during another one."""
    with Held(kit):
        before = kit.statistics().queue_commits
        for number in range(50):
            kit.queue.post(ADD, (f"user {number}",))
    assert kit.queue.drain(LONG)
    assert len(names(kit)) == 50
    assert kit.statistics().queue_commits - before <= 2


def fail_after(connection):
    connection.execute(ADD, ("never",))
    raise KeyError


FAILURES = {
    "statement": lambda queue: queue.execute(ADD, (None,)),
    "statement in part": lambda queue: queue.execute(
        "INSERT OR FAIL INTO users (name) VALUES ('part'), (NULL)"
    ),
    "rolls back": lambda queue: queue.execute("INSERT OR ROLLBACK INTO users VALUES (1, NULL)"),
    "no statement": lambda queue: queue.execute("nonsense"),
    "no value": lambda queue: queue.execute(ADD, (object(),)),
    "function": lambda queue: queue.submit(fail_after),
    "deferred": lambda queue: queue.execute("INSERT INTO notes VALUES (77)"),
    "deferred function": lambda queue: queue.submit(
        lambda connection: connection.execute("INSERT INTO notes VALUES (77)")
    ),
}


@pytest.mark.parametrize("others", ["statements", "functions"])
@pytest.mark.parametrize("failure", FAILURES)
def test_one_failure_does_not_spoil_the_others(kit, failure, others):
    """Whichever way it fails, those before and after it in the same transaction are written
    once."""
    kit.execute("CREATE TABLE notes (user REFERENCES users (id) DEFERRABLE INITIALLY DEFERRED)")

    def add(name):
        if others == "statements":
            return kit.queue.execute(ADD, (name,))
        return kit.queue.submit(lambda connection: connection.execute(ADD, (name,)).rowcount)

    with Held(kit):
        before = add("Ada")
        failing = FAILURES[failure](kit.queue)
        after = add("Grace")
    assert before.exception(LONG) is after.exception(LONG) is None
    assert isinstance(failing.exception(LONG), Exception)
    assert names(kit) == ["Ada", "Grace"]


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
@pytest.mark.parametrize("kind", ["statement", "function"])
def test_a_write_that_ends_the_transaction_loses_no_other(kit, end, kind):
    """As pandas commits: those that were committed are not written twice, those that were rolled
    back are written again."""
    with Held(kit):
        futures = [
            kit.queue.execute(ADD, ("Ada",)),
            kit.queue.execute(end)
            if kind == "statement"
            else kit.queue.submit(lambda connection: connection.execute(end)),
            kit.queue.execute(ADD, ("Grace",)),
        ]
    assert [each.exception(LONG) for each in futures] == [None] * 3
    assert sorted(names(kit)) == ["Ada", "Grace"]


def test_a_policy_refuses_writes_of_the_queue(tmp_path):
    """The future has the refusal; hooks see each write once."""
    policy = RefuseWrites("read only", active=False)
    with Database.open(tmp_path / "app.db", hooks=[policy]) as kit:
        kit.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
        kit.queue.execute(ADD, ("Ada",)).result(LONG)
        policy.active = True
        with raises(RefusedError, "policy"):
            kit.queue.execute(ADD, ("Grace",)).result(LONG)
        policy.active = False
        assert names(kit) == ["Ada"]
        assert kit.statistics().operations["queued"].count == 2


def test_a_locked_database_fails_the_writes_that_waited(tmp_path):
    """After the retries, each future has SQLite's error; later writes are made."""
    import dataclasses

    from replicator.app import MINIMAL
    from replicator.app.retry import Retries
    from replicator.store.retry import RetryPolicy

    preset = dataclasses.replace(MINIMAL, busy_timeout=0.01)
    retries = Retries(RetryPolicy(0.001, 0.001, deadline=0.01))
    with Database.open(tmp_path / "app.db", preset=preset, retries=retries) as kit:
        kit.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
        other = sqlite3.connect(kit.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError):
            kit.queue.execute(ADD, ("Ada",)).result(LONG)
        other.close()
        kit.queue.execute(ADD, ("Grace",)).result(LONG)
        assert names(kit) == ["Grace"]


# -------------------------------------------------------------------------------- end


def test_close_writes_what_waits(kit):
    """A graceful end: nothing that was accepted is lost."""
    with Held(kit):
        for number in range(20):
            kit.queue.post(ADD, (f"user {number}",))
    kit.close()
    with sqlite3.connect(kit.path) as connection:
        assert connection.execute("SELECT count(*) FROM users").fetchone() == (20,)
    connection.close()
    with raises(ReplicatorError, "database_closed"):
        kit.queue.post(ADD, ("late",))


def test_a_close_that_is_too_late_names_what_was_not_written(kit):
    """The futures of those writes have the error too."""
    with Held(kit):
        future = kit.queue.execute(ADD, ("Ada",))
        with raises(DatabaseBusy, "queue_not_drained"):
            kit.queue.close(timeout=0.01)
        with raises(DatabaseBusy, "queue_not_drained"):
            future.result(LONG)


def test_drain_gives_up_after_its_time(kit):
    """And says so."""
    with Held(kit):
        kit.queue.post(ADD, ("Ada",))
        assert not kit.queue.drain(0.01)
    assert kit.queue.drain(LONG)
