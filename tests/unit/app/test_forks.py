"""A server that forks its workers while its threads wait for durable commits.

The threads wait by the path: a thread inside SQLite at the fork would leave SQLite's own mutex
locked in the child, with or without a replicator. For the same reason the sidecar is a process.
"""

import contextlib
import os
import signal
import sqlite3
import threading

import pytest

from replicator import SqliteReplicator, SqliteReplicatorConfig, durable, wait_durable
from tests.helpers.replication import LONG


@pytest.fixture
def preloaded(app, tmp_path):
    """A handle that was started before the workers are forked."""
    (tmp_path / "bucket").mkdir()
    config = SqliteReplicatorConfig(db_path=app.path, url=f"file://{tmp_path / 'bucket'}")
    with SqliteReplicator(config, log=tmp_path / "log") as replicator:
        yield replicator


def commit(path, name):
    with contextlib.closing(sqlite3.connect(path, timeout=LONG)) as connection:
        with durable(connection, LONG) as outcome:
            connection.execute("INSERT INTO t(body) VALUES (?)", (name,))
        return outcome.durable


def worker(path, name):
    """A child that commits twice; it ends with 0 if both were durable."""
    if pid := os.fork():
        return pid
    signal.alarm(int(LONG))  # ends a child that hangs
    code = 1
    try:
        code = 0 if commit(path, name) and commit(path, name) else 1
    finally:
        os._exit(code)


def test_workers_are_forked_while_threads_wait(preloaded, app):
    """No child hangs in a lock of its parent, or takes an answer of it; each commit is durable."""
    over = threading.Event()

    def run():
        while not over.is_set():
            wait_durable(app.path, timeout=LONG)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        children = [worker(app.path, f"child {number}") for number in range(6)]
        codes = [os.waitpid(child, 0)[1] for child in children]
    finally:
        over.set()
        for thread in threads:
            thread.join(LONG)
    assert codes == [0] * 6
    assert wait_durable(app.path, timeout=LONG).txid == preloaded.status().durable_txid
    found = app.db.execute("SELECT count(*) FROM t WHERE body LIKE 'child%'").fetchone()
    assert found == (12,)
