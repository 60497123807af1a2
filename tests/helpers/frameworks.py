"""Real applications under load: a site, its machine, its clients, and the ends of its processes.

A `Site` is one of the programs in ``tests/programs/frameworks`` or ``examples``. A `Machine` is a
directory with a copy of it, with the database and the cache. `Clients` send orders over HTTP, and
journal each order that was answered with 200, outside the database.
"""

import contextlib
import hashlib
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.command_line import free_of_tracebacks
from tests.helpers.replication import LONG, wait_for

PROGRAMS = Path(__file__).parents[1] / "programs" / "frameworks"
EXAMPLES = Path(__file__).parents[2] / "examples"
BIN = Path(sys.executable).parent
MARK = "REPLICATOR_TEST_MACHINE"  # in the environment of each process of a machine
# Words that no log of an application may hold, however its processes ended.
HARM = ("malformed", "disk I/O error", "database is locked", "not a database", "no such table")


def body_of(key):
    """The content of an order: 1 to 9 kB that depend on its key alone."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    return digest * (16 + int(digest[:2], 16) // 2)


@dataclass(frozen=True)
class Site:
    """A program and its commands. ``{port}`` is replaced; words are split at spaces."""

    folder: str
    plain: str  # serves the application, without a replicator in it
    replicated: str = ""  # the same with the library's handle inside
    prepare: str = ""  # before each start, for example a migration
    restore: str = "replicator restore --output shop.db --if-missing --if-backup-exists"
    table: str = "orders"
    auto_restore: bool = False  # the handle restores a lost database
    queue: str = ""  # a second process of the application, of a queue
    replicated_queue: str = ""
    shelf: Path = PROGRAMS  # the directory that has the folder

    @property
    def source(self):
        """The directory of the program."""
        return self.shelf / self.folder

    @property
    def programs(self):
        """The programs of its commands that come from the Python that runs the tests: not node."""
        lines = (self.plain, self.replicated, self.prepare, self.queue, self.replicated_queue)
        return {line.split()[0] for line in lines if line} - {"node"}

    def command(self, form, port):
        """The command that serves the application, without its preparation."""
        line = self.plain if form == "around" else self.replicated
        return line.format(port=port).split()

    def around(self, port):
        """The command of ``replicator run DB -- CMD``."""
        before = [f"{self.prepare} && "] if self.prepare else []
        before += [f"{self.queue} & "] if self.queue else []
        serve = self.command("around", port)
        return ["sh", "-c", f"{''.join(before)}exec {' '.join(serve)}"] if before else serve


class Clients:
    """Threads that send orders, one after another each, until `stop`."""

    def __init__(self, port, journal, *, threads=4):
        self.port, self.journal = port, journal
        self.workers = Counter()  # answers by process
        self.errors = []  # answers other than 200
        self.sent = set()
        self._lock, self._over = threading.Lock(), threading.Event()
        self._threads = [
            threading.Thread(target=self._send_all, args=(number,), daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def acknowledged(self):
        return self.workers.total()

    def stop(self):
        self._over.set()
        for thread in self._threads:
            thread.join(LONG)

    def _send_all(self, thread):
        run, number = secrets.token_hex(4), 0
        while not self._over.is_set():
            number += 1
            key = f"{run}-{thread}-{number}"
            with self._lock:
                self.sent.add(key)
            try:
                self._send(key)
            except (OSError, http.client.HTTPException, ValueError):  # not answered
                self._over.wait(0.02)

    def _send(self, key):
        order = json.dumps({"key": key, "body": body_of(key)})
        status, answer = ask(self.port, "POST", order)
        if status == http.client.SERVICE_UNAVAILABLE:  # the application does not know the outcome
            return
        if status != http.client.OK:
            self.errors.append((status, answer))
            return
        worker = json.loads(answer)["worker"]
        with self._lock:
            with self.journal.open("a") as file:
                file.write(key + "\n")
            self.workers[worker] += 1


def ask(port, method="GET", body=None):
    """(status, text) of one request to the application."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG)
    with contextlib.closing(connection):
        connection.request(method, "/orders", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Machine:
    """One machine with one site; the bucket, the journal and the restores are outside of it."""

    def __init__(self, directory, site, form, bucket):
        """``form`` is "around" (replicator run DB -- CMD) or "inside" (the library's handle);
        ``bucket`` has the environment variables that name a bucket and its credentials."""
        absent = sorted(name for name in site.programs if not (BIN / name).exists())
        assert absent == [], f"{absent} not in {BIN}: run `make install` or `make frameworks`"
        self.outside, self.site, self.form = directory, site, form
        self.home = directory / "machine"
        self.database = self.home / "shop.db"
        self.journal = directory / "journal"
        self.journal.touch()
        self.port = free_port()
        self.name = secrets.token_hex(8)
        self.environment = {
            **os.environ,
            **bucket,
            MARK: self.name,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
        }
        self.process = self.queue = None
        self.clients = None
        self.sent = set()
        self.logs = []
        self.restores = 0
        shutil.copytree(site.source, self.home)

    # ------------------------------------------------------------------ start and load

    def start(self):
        """Starts the site as its users would, and waits until it answers."""
        if self.form == "around":
            self.process = self.run(
                ["replicator", "run", "shop.db", "--", *self.site.around(self.port)]
            )
        else:
            if not self.site.auto_restore:
                self.call(self.site.restore)
            if self.site.prepare:
                self.call(self.site.prepare)
            if self.site.queue:
                self.queue = self.run(self.site.replicated_queue.split())
            self.process = self.run(self.site.command("inside", self.port))
        wait_for(self.answers)

    def run(self, command):
        """A process in a session of its own; its output is a log."""
        self.logs.append(self.outside / f"log-{len(self.logs)}")
        with self.logs[-1].open("wb") as log:
            return subprocess.Popen(
                command,
                cwd=self.home,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def call(self, line):
        """Runs a command of the users to its end."""
        done = subprocess.run(
            line.split(),
            cwd=self.home,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=LONG,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def answers(self):
        """True once the application answers."""
        assert self.process.poll() is None, self.log
        with contextlib.suppress(OSError, http.client.HTTPException):
            return ask(self.port)[0] == http.client.OK
        return False

    def load(self, orders):
        """Lets clients send orders until so many more were acknowledged; they continue."""
        if self.clients is None:
            self.clients = Clients(self.port, self.journal)
        enough = self.clients.acknowledged + orders

        self.until(lambda: self.clients.acknowledged >= enough)

    def until(self, condition):
        """Waits under load; the application must run, and refuse nothing."""

        def met():
            assert self.clients.errors == [], self.clients.errors[0]
            assert self.process.poll() is None, self.log
            return condition()

        wait_for(met, interval=0.02)

    def until_new_worker(self):
        """Waits until a process answers that did not answer before."""
        known = set(self.clients.workers)
        self.until(lambda: self.clients.workers.keys() - known)

    @property
    def log(self):
        """The output of the site so far."""
        return "".join(log.read_text(errors="replace") for log in self.logs)

    # ------------------------------------------------------------------ processes

    @property
    def processes(self):
        """The live processes of this machine."""
        own = f"{MARK}={self.name}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and own in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found

    @property
    def master(self):
        """The process of the server: the command of the replicator, or the one that we started."""
        if self.form == "inside":
            return self.process.pid
        children = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        (pid,) = map(int, Path(children).read_text().split())
        return pid

    def workers(self):
        """The live processes that have answered an order, and are not the master."""
        return [pid for pid in self.clients.workers if pid != self.master and alive(pid)]

    def send(self, number, pid=None):
        """A signal to the process that a supervisor knows, or to another one."""
        os.kill(self.process.pid if pid is None else pid, number)

    def kill_all(self):
        """SIGKILL of every process, the sidecar included, until none is left."""

        def none():
            for pid in self.processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for process in (self.process, self.queue):
                if process is not None:
                    process.poll()
            return not self.processes

        wait_for(none)

    def ended(self):
        """Waits until no process is left; stops the clients; the exit code of the server."""
        code = self.process.wait(LONG)
        if self.queue is not None:
            self.queue.terminate()
            self.queue.wait(LONG)
            self.queue = None
        wait_for(lambda: not self.processes, interval=0.05)
        if self.clients is not None:
            self.clients.stop()
            self.sent |= self.clients.sent
            self.clients = None
        self.check_logs()
        return code

    def check_logs(self):
        """No log has a word of harm to the database."""
        assert [word for word in HARM if word in self.log] == [], self.log

    def lose(self):
        """The disk is lost: database, WAL, cache. The programs are installed again."""
        assert not self.processes
        shutil.rmtree(self.home)
        shutil.copytree(self.site.source, self.home)

    def close(self):
        """Kills the processes that are left."""
        if self.process is not None:
            self.kill_all()
            self.process.wait(LONG)
        if self.clients is not None:
            self.clients.stop()

    # ------------------------------------------------------------------ the oracle

    @property
    def acknowledged(self):
        return set(self.journal.read_text().split())

    def check_bucket(self, *, at_least=None):
        """A restore from the bucket alone has every acknowledged order, no unknown one, and the
        content of each; the number of orders."""
        self.restores += 1
        copy = self.outside / f"restored-{self.restores}.db"
        place = self.outside / "elsewhere"
        place.mkdir(exist_ok=True)
        prefix = self.environment.get("REPLICATOR_PREFIX", "shop.db")
        done = subprocess.run(
            [BIN / "replicator", "restore", "--output", copy, "--prefix", prefix],
            cwd=place,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=LONG,
            check=False,
        )
        assert done.returncode == 0, free_of_tracebacks(done.stderr)
        with contextlib.closing(sqlite3.connect(copy)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            rows = connection.execute(f"SELECT key, body FROM {self.site.table}").fetchall()
        return self.check_rows(dict(rows), at_least)

    def check_site(self):
        """The running application itself returns every acknowledged order."""
        return self.check_rows(json.loads(ask(self.port)[1]))

    def check_rows(self, rows, at_least=None):
        wanted = self.acknowledged if at_least is None else at_least
        assert wanted - rows.keys() == set(), "acknowledged, and lost"
        assert rows.keys() - self.sent == set(), "never sent"
        assert [key for key, body in rows.items() if body != body_of(key)] == []
        return len(rows)


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return False
    return state not in "ZX"
