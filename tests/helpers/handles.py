"""Applications that have handles, their sidecars, and the commits that they know of."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from replicator import restore
from tests.helpers.command_line import cache_of
from tests.helpers.replication import LONG, wait_for

TOP = Path(__file__).parents[2]


class HandledApplication:
    """A database, its bucket in a directory, and the journal of its applications."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.path = self.directory / "app.db"
        self.bucket = self.directory / "bucket"
        self.bucket.mkdir()
        self.journal = self.directory / "journal"
        self.log = self.directory / "log"
        self._restores = 0

    def start(self, end, commits=20, last=LONG, **options):
        """A process of tests/programs/application.py; its commits wait for a line, see there."""
        arguments = [self.path, f"file://{self.bucket}", self.journal, end, commits, last]
        with self.log.open("a") as log:  # the sidecar has it too: a pipe would end with that only
            return subprocess.Popen(
                [sys.executable, "-m", "tests.programs.application", *map(str, arguments)],
                cwd=TOP,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                **options,
            )

    def run(self, end, commits=20):
        """The exit code of an application that ran to its end."""
        process = self.start(end, commits)
        process.communicate(timeout=LONG)
        return process.returncode

    def run_while_away(self, end, commits=20, number=signal.SIGTERM):
        """The same, but the store goes away before the first commit. The signal ``number`` then
        ends the sidecar, and the store comes back after that."""
        process = self.start(end, commits, last=0.1)
        assert process.stdout.readline() == "following\n"
        self.bucket.rename(self.directory / "away")
        try:
            process.communicate("go\n", timeout=LONG)
            wait_for(lambda: self.hurry(number) is None)
        finally:
            (self.directory / "away").rename(self.bucket)
        return process.returncode

    @property
    def sidecar(self):
        """The process that has the lock of the database; None if there is none."""
        return sidecar_of(self.path)

    def wait_end(self):
        """Wait until the sidecar ended."""
        wait_for(lambda: self.sidecar is None)

    def hurry(self, number=signal.SIGTERM):
        """End a sidecar that no application has any more, and that waits for its store; its
        process, None once there is none."""
        if pid := self.sidecar:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return pid

    def acknowledged(self):
        """Every commit that an application was told of."""
        if not self.journal.exists():
            return set()
        return {tuple(line.split()) for line in self.journal.read_text().splitlines()}

    def copy(self):
        """A restore that reads the bucket only."""
        self._restores += 1
        output = self.directory / f"restored-{self._restores}.db"
        restore(url=f"file://{self.bucket}", prefix="app.db", output=output)
        return output

    def lost(self):
        """The acknowledged commits that the bucket alone does not give back."""
        return self.acknowledged() - commits_in(self.copy())

    def check(self):
        lost, known = self.lost(), len(self.acknowledged())
        assert not lost, f"{len(lost)} of {known} commits are lost: {sorted(lost)[:5]}"


def commits_in(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = connection.execute("SELECT worker, seq FROM done").fetchall()
    return {(worker, str(seq)) for worker, seq in rows}


def sidecar_of(path):
    """The process that has the lock of a database and runs; None if there is none."""
    with contextlib.suppress(FileNotFoundError, IndexError):
        pid = int((cache_of(path) / "lock").read_text().split()[0])
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return None if state in "ZX" or pid == os.getpid() else pid
    return None
