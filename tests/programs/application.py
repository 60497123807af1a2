"""An application that has a handle on its sidecar, and ends in the way that it is told to.

Each commit is written to a journal outside the database after it was acknowledged. The journal has
one line for each: the number of the process, and that of the commit. The first commits wait until
standard input ends or has a line. LAST is the time in seconds for the flush at the end.

    python -m tests.programs.application DATABASE URL JOURNAL END [COMMITS [LAST]]
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sqlite3
import sys
import threading
import time

from replicator import SqliteReplicator, SqliteReplicatorConfig
from replicator.errors import ReplicatorError
from replicator.handle.handle import HandleTimes

BUSY = 60.0  # seconds that a writer waits for another one


class Failure(Exception):
    """The application's own."""


class Application:
    """One process, and its children."""

    def __init__(self, database, url, journal, commits, last=BUSY):
        self.database, self.journal, self.commits, self.last = database, journal, commits, last
        self.config = SqliteReplicatorConfig(db_path=database, url=url, prefix="app.db")
        self.replicator = SqliteReplicator(
            self.config, times=HandleTimes(final_flush=last, end=max(10.0, last))
        )

    def start(self):
        """Replicates, and waits for the test."""
        self.replicator.start()
        self.ready()

    def ready(self):
        sys.stdout.write("following\n")
        sys.stdout.flush()
        sys.stdin.readline()

    @contextlib.contextmanager
    def block(self):
        with self.replicator:
            self.ready()
            yield

    def commit(self, worker=0, commits=None):
        """Commits, and writes each into the journal."""
        connection = sqlite3.connect(self.database, isolation_level=None, timeout=BUSY)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE IF NOT EXISTS done (worker, seq)")
        journal = os.open(self.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        name = f"{os.getpid()}-{worker}"
        for number in range(self.commits if commits is None else commits):
            connection.execute("INSERT INTO done VALUES (?, ?)", (name, number))
            os.write(journal, f"{name} {number}\n".encode())
        os.close(journal)
        connection.close()

    # --------------------------------------------------------------------- ways to end

    def returns(self):
        with self.block():
            self.commit()

    def raises(self):
        with self.block():
            self.commit()
            raise Failure

    def exits(self):
        with self.block():
            self.commit()
            sys.exit(3)

    def interrupted(self):
        with self.block():
            self.commit()
            signal.raise_signal(signal.SIGINT)

    def exits_at_once(self):
        self.start()
        self.commit()
        os._exit(0)

    def killed(self):
        with self.block():
            self.commit()
            os.kill(os.getpid(), signal.SIGKILL)

    def terminated(self):
        with self.block():
            self.commit()
            signal.raise_signal(signal.SIGTERM)

    def forgets(self):
        self.start()
        self.commit()

    def stops(self):
        self.start()
        self.commit()
        self.replicator.stop()

    def parent_first(self):
        """The parent ends while its child still commits."""
        self.start()
        self.commit(1)
        parent = os.getpid()
        if os.fork():
            os._exit(0)
        while os.getppid() == parent:
            time.sleep(0.001)
        self.commit(2)
        os._exit(0)

    def fork_workers(self):
        """A server that loads the application before it forks: one worker uses the handle."""
        self.start()
        workers = []
        for number in range(3):
            if pid := os.fork():
                workers.append(pid)
                continue
            self.commit(number)
            if number == 1:
                self.replicator.flush(BUSY)
            os._exit(0)
        for pid in workers:
            os.waitpid(pid, 0)
        os._exit(0)

    def forks_in_threads(self):
        """Children are forked while other threads are in calls of the handle; each uses it."""
        self.start()
        over = threading.Event()

        def call():
            while not over.is_set():
                self.replicator.status()
                self.replicator.metrics.snapshot()
                with contextlib.suppress(ReplicatorError):
                    self.replicator.flush(0.01)

        callers = [threading.Thread(target=call) for _ in range(3)]
        for caller in callers:
            caller.start()
        workers = []
        for number in range(3):
            if not (pid := os.fork()):
                signal.alarm(int(BUSY))  # ends a child that hangs
                self.commit(number)
                self.replicator.status()
                with contextlib.suppress(ReplicatorError):
                    self.replicator.flush(self.last)
                self.replicator.stop()
                os._exit(0)
            workers.append(pid)
        codes = [os.waitpid(pid, 0)[1] for pid in workers]
        over.set()
        for caller in callers:
            caller.join()
        assert codes == [0, 0, 0], codes
        self.replicator.stop()

    def sidecar_dies(self):
        """The sidecar is killed between two commits, shortly before the end."""
        self.start()
        self.commit(1)
        os.kill(int((self.config.cache / "lock").read_text().split()[0]), signal.SIGKILL)
        self.commit(2)
        self.replicator.stop()

    def processes(self, method="fork"):
        """multiprocessing."""
        self.start()
        context = multiprocessing.get_context(method)
        arguments = [
            (self.database, self.config.url, self.journal, self.commits, n) for n in (1, 2)
        ]
        workers = [context.Process(target=work, args=(each,)) for each in arguments]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers] == [0, 0]
        self.replicator.stop()

    def spawned_processes(self):
        self.processes("spawn")


def work(arguments):
    """A worker of multiprocessing, with a handle of its own."""
    *rest, number = arguments
    application = Application(*rest)
    application.replicator.start()
    application.commit(number)


ENDS = {
    name: function
    for name, function in vars(Application).items()
    if callable(function) and name[0] != "_" and name not in ("commit", "start", "ready", "block")
}


def main():
    database, url, journal, end, *rest = sys.argv[1:]
    commits, last = [*rest, "20", str(BUSY)][:2] if not rest[1:] else rest
    ENDS[end](Application(database, url, journal, int(commits), float(last)))


if __name__ == "__main__":
    main()
