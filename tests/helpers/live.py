"""A live database for the tests of replication end to end: its writers, its store, its restores.

`Scene` is one database with processes that write to it (see workload.py) and a directory as the
store. It never opens the database while a replicator runs in this process: closing any
descriptor of the file would drop the locks on it. The source is read once everything else ended.
"""

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from replicator import SqliteReplicator, SqliteReplicatorConfig, restore
from tests.helpers.command import Sidecar
from tests.programs import workload

LONG = 100.0  # seconds after which a test is stuck; nothing is ever timed against it
WORKLOAD = Path(__file__).parents[1] / "programs" / "workload.py"
# `replicator run` with another length at which a log is let go; 1000 would be the default.
SHORT_LOG = """
import sys
import replicator.capture.holds
replicator.capture.holds.ROLL_OVER_FRAMES = int(sys.argv.pop(1))
from replicator.__main__ import main
sys.exit(main())
"""


class Process:
    """One process of the application. Whatever it says on stderr is an error it got."""

    def __init__(self, database, log, number, options, *, stdin=subprocess.DEVNULL):
        self.number = number
        self.errors = log.with_name(f"{log.name}.stderr-{number}")
        arguments = [
            f"--{name.replace('_', '-')}={value}" if value is not True else f"--{name}"
            for name, value in options.items()
        ]
        with self.errors.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, str(WORKLOAD), str(database), str(log), *arguments],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )

    @property
    def running(self):
        return self.process.poll() is None

    def finish(self):
        """It ends by itself, unharmed."""
        assert self.process.wait(LONG) == 0, self.errors.read_text()
        assert self.errors.read_text() == ""

    def kill(self):
        self.process.kill()
        self.process.wait(LONG)

    def says(self):
        return self.process.stdout.readline()

    def go_on(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()


class LiveSidecar(Sidecar):
    """``replicator run`` as a process, with logs of any length."""

    def __init__(self, arguments, db, log, roll_over):
        self.db, self.log = db, log
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SHORT_LOG, str(roll_over), "run", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
            )

    def kill(self):
        """SIGKILL: no flush, no farewell."""
        self.process.kill()
        self.process.wait(LONG)


class Scene:
    """One database, its application, its store."""

    def __init__(self, directory, *, url=None, endpoint_url=None, prefix="app.db"):
        self.directory = directory
        self.endpoint_url, self.prefix = endpoint_url, prefix
        self.path = directory / "app.db"
        self.wal = directory / "app.db-wal"
        (directory / "store").mkdir()
        self.url = url or f"file://{directory / 'store'}"
        self.processes = []
        self.sidecars = []
        self._restores = 0

    # the application

    def log(self, writer):
        return self.directory / f"commits-{writer}"

    def start(self, writer=1, **options):
        """A writer process; options as in workload.py."""
        return self._process({"writer": writer, "seed": writer} | options, writer)

    def reader(self):
        """A process with a long read transaction, and the receipts that it sees."""
        reader = self._process({"hold": True}, 0, stdin=subprocess.PIPE)
        return reader, reader.says()

    def _process(self, options, writer, **more):
        started = Process(self.path, self.log(writer), len(self.processes), options, **more)
        self.processes.append(started)
        return started

    def begin(self, *, page_size=4096, **others):
        """The database as it is made, with one commit in it."""
        self.write(commits=1, page_size=page_size)

    def write(self, writers=1, **options):
        """Writer processes side by side, from their beginning to their end."""
        for process in self.start_all(writers, **options):
            process.finish()

    def start_all(self, writers=1, **options):
        return [self.start(writer, **options) for writer in range(1, writers + 1)]

    def committed(self):
        """Of each writer, the last transaction whose COMMIT had returned."""
        found = {}
        for log in self.directory.glob("commits-*"):
            if log.suffix == "" and (lines := log.read_text().splitlines()):
                writer, seq = map(int, lines[-1].split())
                found[writer] = seq
        return found

    def total(self):
        """How many transactions the application knows to be committed."""
        return sum(self.committed().values())

    # the replicator

    def replicator(self, *, store=None, **settings):
        values = {"db_path": self.path, "url": self.url, "sync_interval": 0.02}
        return SqliteReplicator(SqliteReplicatorConfig(**values | settings), store=store)

    @contextlib.contextmanager
    def replicating(self, **settings):
        """A replicator in this process, stopped (without a flush) at the end."""
        replicator = self.replicator(**settings)
        replicator.start()
        try:
            yield replicator
        finally:
            replicator.stop()

    def sidecar(self, *options, roll_over=1000):
        """A process that runs ``replicator run``. ``roll_over`` in frames makes logs short."""
        log = self.directory / f"sidecar-{len(self.sidecars)}.log"
        arguments = [
            str(self.path),
            "--url",
            self.url,
            "--prefix",
            self.prefix,
            "--sync-interval",
            "20ms",
            *options,
        ]
        if self.endpoint_url:
            arguments += ["--endpoint-url", self.endpoint_url]
        started = LiveSidecar(arguments, self.path, log, roll_over)
        self.sidecars.append(started)
        return started

    def flush(self):
        """`replicator flush`, and the txid that it reports durable."""
        done = subprocess.run(
            [sys.executable, "-m", "replicator", "flush", str(self.path), "--json"],
            capture_output=True,
            text=True,
            check=False,
            timeout=LONG,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["txid"]

    # the way back

    def restore(self, *, store=None, **options):
        """(path, report) of a restore from the store alone."""
        self._restores += 1
        output = self.directory / f"restored-{self._restores}.db"
        place = {"store": store} if store else {"url": self.url, "endpoint_url": self.endpoint_url}
        return output, restore(output=output, prefix=self.prefix, **place, **options)

    def prefix_holds(self, copy, *, at_least):
        """O2: exactly the transactions 1 … k of each writer, k no less than ``at_least``."""
        with contextlib.closing(sqlite3.connect(copy)) as connection:
            assert workload.violations(connection) == []
            for writer, seq in at_least.items():
                assert workload.last_committed(connection, writer) >= seq, f"writer {writer}"

    def source(self):
        """The bytes of the database with all of its log in it; only when all others ended."""
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        return self.path.read_bytes()

    def exact(self, *, store=None):
        """O1 and O2: the store alone gives back the source page by page, and all commits."""
        copy, report = self.restore(store=store)
        assert_same_pages(copy.read_bytes(), self.source())
        self.prefix_holds(copy, at_least=self.committed())
        return report

    def leave(self):
        for process in [*self.processes, *self.sidecars]:
            if process.process.poll() is None:
                process.process.kill()
                process.process.wait()


def assert_same_pages(data, source):
    """Bytes, with the pages that differ named."""
    if data == source:
        return
    size = int.from_bytes(source[16:18], "big")
    size = 65536 if size == 1 else size
    pages = range(max(len(data), len(source)) // size)
    differing = [
        n + 1 for n in pages if data[n * size : (n + 1) * size] != source[n * size : (n + 1) * size]
    ]
    raise AssertionError(
        f"{len(data)} bytes restored, {len(source)} in the source; "
        f"pages that differ: {differing[:20]} ({len(differing)})"
    )


@pytest.fixture
def scene(tmp_path):
    scene = Scene(tmp_path)
    yield scene
    scene.leave()


@pytest.fixture
def scenes(tmp_path):
    """``scenes(times, most)`` yields (scene, how often) until ``times`` is used up: a fresh
    database each, so that none grows for hours. A scene that went well is removed."""

    def fresh(times, most=100):
        for number, first in enumerate(range(0, times, most)):
            directory = tmp_path / f"scene-{number}"
            directory.mkdir()
            scene = Scene(directory)
            try:
                yield scene, min(most, times - first)
            finally:
                scene.leave()
            shutil.rmtree(directory)

    return fresh
