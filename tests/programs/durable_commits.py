"""An application whose commits are durable: several processes, one of them without a handle.

Each block that returned is written to a journal outside the database: the worker, and the number of
the commit. A commit whose wait failed is not. Prints a line once the sidecar follows.

    python -m tests.programs.durable_commits DATABASE URL JOURNAL NAME
"""

from __future__ import annotations

import os
import sqlite3
import sys
import threading

from replicator import SqliteReplicator, SqliteReplicatorConfig, durable, wait_durable
from replicator.errors import ReplicatorError

BUSY = 60.0  # seconds that a writer waits for another one
WAIT = 10.0  # seconds for a commit to be durable


def connect(database):
    return sqlite3.connect(database, isolation_level=None, timeout=BUSY)


class Worker:
    """One thread of a process. Its name is in each row and in each line of the journal."""

    def __init__(self, database, journal, name):
        self.database, self.name = database, name
        self.journal = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def returned(self, number):
        os.write(self.journal, f"{self.name} {number}\n".encode())

    def block(self, connection, number):
        with durable(connection, WAIT):
            connection.execute("INSERT INTO done VALUES (?, ?)", (self.name, number))

    def wait(self, connection, number):
        connection.execute("INSERT INTO done VALUES (?, ?)", (self.name, number))
        wait_durable(self.database, timeout=WAIT)

    def run(self, way):
        connection = connect(self.database)
        number = 0
        while True:
            number += 1
            try:
                way(self, connection, number)
            except ReplicatorError:
                continue  # the sidecar was killed; the commit is not acknowledged
            self.returned(number)


WAYS = (Worker.block, Worker.block, Worker.wait)


def work(database, journal, name):
    """One process: a thread for each way."""
    threads = [
        threading.Thread(target=Worker(database, journal, f"{name}-{number}").run, args=(way,))
        for number, way in enumerate(WAYS)
    ]
    for thread in threads:
        thread.start()


def main():
    database, url, journal, name = sys.argv[1:]
    children = []
    if not os.fork():  # no handle: it finds the sidecar by the path, once there is one
        work(database, journal, f"{name}-stranger")
        return
    config = SqliteReplicatorConfig(db_path=database, url=url, prefix="app.db")
    replicator = SqliteReplicator(config)
    replicator.start()
    wait_durable(database, timeout=BUSY)  # the children inherit a connection, a thread and a lock
    for number in range(2):
        if not (pid := os.fork()):
            work(database, journal, f"{name}-{number}")
            return
        children.append(pid)
    print("following", flush=True)  # noqa: T201
    work(database, journal, f"{name}-parent")


if __name__ == "__main__":
    main()
