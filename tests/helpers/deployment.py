"""A live database for end-to-end tests: its writer processes, its replicator, store and restores.

`Deployment` is one database with processes that write to it (see workload.py) and a directory as
the store. It never opens the database while a replicator runs in this process, because closing any
descriptor of the file would drop the locks on it; `source` may be called once all others ended.
"""

import contextlib
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

from replicator import SqliteReplicatorConfig, restore
from replicator.engine.in_process import InProcessReplicator
from tests.helpers.command_line import Sidecar
from tests.helpers.limits import limits_for
from tests.helpers.processes import STANDARD_PYTHON
from tests.helpers.replication import LONG
from tests.programs import workload

WORKLOAD = Path(__file__).parents[1] / "programs" / "workload.py"
# `replicator run` with another length at which the WAL is rolled over; the default is 1000 frames.
RUN_WITH_SHORT_WAL = """
import sys
from dataclasses import replace
from replicator.engine.limits import Limits
frames, limits_of = int(sys.argv.pop(1)), Limits.of
def short(config):
    limits = limits_of(config)
    return replace(limits, capture=replace(limits.capture, roll_over_frames=frames))
Limits.of = staticmethod(short)
from replicator.__main__ import main
sys.exit(main())
"""


class ApplicationProcess:
    """One process of the application. It writes only errors to stderr."""

    def __init__(self, database, log, number, options, *, stdin=subprocess.DEVNULL):
        self.number = number
        self.errors = log.with_name(f"{log.name}.stderr-{number}")
        arguments = [
            f"--{name.replace('_', '-')}={value}" if value is not True else f"--{name}"
            for name, value in options.items()
        ]
        with self.errors.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*STANDARD_PYTHON, str(WORKLOAD), str(database), str(log), *arguments],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )

    @property
    def running(self):
        return self.process.poll() is None

    def finish(self):
        """Waits for its regular end; it must have met no error."""
        assert self.process.wait(LONG) == 0, self.errors.read_text()
        assert self.errors.read_text() == ""

    def kill(self):
        self.process.kill()
        self.process.wait(LONG)

    def read_line(self):
        """The next line that the process prints."""
        return self.process.stdout.readline()

    def resume(self):
        """Sends the line on which a holding reader waits."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()


class LiveSidecar(Sidecar):
    """``replicator run`` as a process that rolls the WAL over after ``roll_over`` frames."""

    def __init__(self, arguments, db, log, roll_over):
        self.db, self.log = db, log
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", RUN_WITH_SHORT_WAL, str(roll_over), "run", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
            )

    def kill(self):
        """SIGKILL: without a flush or any clean-up."""
        self.process.kill()
        self.process.wait(LONG)


class Deployment:
    """One database, its application processes, its replicator and its store."""

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
        """A process with a long read transaction, and the line that counts the receipts in it."""
        reader = self._process({"hold": True}, 0, stdin=subprocess.PIPE)
        return reader, reader.read_line()

    def _process(self, options, writer, **more):
        started = ApplicationProcess(
            self.path, self.log(writer), len(self.processes), options, **more
        )
        self.processes.append(started)
        return started

    def create(self, *, page_size=4096, **others):
        """Creates the database, with one commit in it."""
        self.write(commits=1, page_size=page_size)

    def write(self, writers=1, **options):
        """Runs concurrent writer processes to their end."""
        for process in self.start_all(writers, **options):
            process.finish()

    def start_all(self, writers=1, **options):
        return [self.start(writer, **options) for writer in range(1, writers + 1)]

    def committed(self):
        """The last transaction of each writer whose COMMIT returned."""
        found = {}
        for log in self.directory.glob("commits-*"):
            if log.suffix == "" and (lines := log.read_text().splitlines()):
                writer, seq = map(int, lines[-1].split())
                found[writer] = seq
        return found

    def total(self):
        """The number of transactions that the application knows to be committed."""
        return sum(self.committed().values())

    # the replicator

    def replicator(self, *, store=None, limits=None, **settings):
        """``limits`` are fields of the limits by part, see :mod:`tests.helpers.limits`."""
        values = {"db_path": self.path, "url": self.url, "sync_interval": 0.02}
        config = SqliteReplicatorConfig(**values | settings)
        return InProcessReplicator(config, store=store, limits=limits_for(config, limits or {}))

    @contextlib.contextmanager
    def replicating(self, **settings):
        """A replicator in this process, stopped (without a flush) at the end."""
        replicator = self.replicator(**settings)
        replicator.start()
        try:
            yield replicator
        finally:
            replicator.stop()

    def sidecar(self, *options, roll_over=1000, command=()):
        """A process that runs ``replicator run``, around ``command``; ``roll_over`` is in
        frames."""
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
        if command:
            arguments += ["--", *map(str, command)]
        started = LiveSidecar(arguments, self.path, log, roll_over)
        self.sidecars.append(started)
        return started

    def flush(self):
        """Runs ``replicator flush``; returns the txid that it reports durable."""
        done = subprocess.run(
            [sys.executable, "-m", "replicator", "flush", str(self.path), "--json"],
            capture_output=True,
            text=True,
            check=False,
            timeout=LONG,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["txid"]

    # restores

    def restore(self, *, store=None, output=None, **options):
        """(path, report) of a restore that reads the store only."""
        self._restores += 1
        output = output or self.directory / f"restored-{self._restores}.db"
        source = {"store": store} if store else {"url": self.url, "endpoint_url": self.endpoint_url}
        return output, restore(output=output, prefix=self.prefix, **source, **options)

    def check_commits(self, copy, *, at_least):
        """O2: exactly the transactions 1 … k of each writer, k no less than ``at_least``."""
        with contextlib.closing(sqlite3.connect(copy)) as connection:
            assert workload.violations(connection) == []
            for writer, seq in at_least.items():
                assert workload.last_committed(connection, writer) >= seq, f"writer {writer}"

    def source(self):
        """The bytes of the database after a full checkpoint; only when all others ended."""
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        return self.path.read_bytes()

    def check_exact(self, *, store=None):
        """O1 and O2: a restore from the store equals the source page by page, with all commits."""
        copy, report = self.restore(store=store)
        assert_same_pages(copy.read_bytes(), self.source())
        self.check_commits(copy, at_least=self.committed())
        return report

    def close(self):
        """Kills the processes that still run."""
        for process in [*self.processes, *self.sidecars]:
            if process.process.poll() is None:
                process.process.kill()
                process.process.wait()


def assert_same_pages(data, source):
    """Compares bytes; the error names the pages that differ."""
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
