"""Durable commits while everything is killed: whatever returned is in the bucket."""

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from replicator import restore
from tests.helpers.handles import TOP, HandledApplication, commits_in
from tests.helpers.replication import LONG, wait_for
from tests.plugins.scoreboard import effort

KILLS = effort(8, 500)
LONGEST = 0.6  # seconds of commits before a kill


class Machine(HandledApplication):
    """A machine that is lost, time after time, and begun anew with what the bucket has."""

    def begin(self, name):
        """A process group of an application; its sidecar is not in it."""
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("CREATE TABLE IF NOT EXISTS done (worker, seq)")
        with self.log.open("a") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.programs.durable_commits"),
                    *map(str, (self.path, f"file://{self.bucket}", self.journal, name)),
                ],
                cwd=TOP,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        assert process.stdout.readline() == "following\n"
        return process

    def kill_sidecar(self):
        if pid := self.sidecar:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill(self, process, rng):
        """SIGKILL of the application and of the sidecar, in any order."""
        ends = [self.kill_sidecar, lambda: os.killpg(process.pid, signal.SIGKILL)]
        for end in rng.sample(ends, 2):
            end()
            if rng.random() < 0.5:
                time.sleep(rng.random() / 50)
        process.communicate(timeout=LONG)
        wait_for(lambda: not _group_runs(process.pid))
        wait_for(lambda: self.sidecar is None or self.kill_sidecar())

    def lose(self):
        """Nothing but the bucket and the journal is left; the new machine restores."""
        for path in self.directory.glob(".app.db-replicator/*"):
            with contextlib.suppress(IsADirectoryError):
                path.unlink()
        for path in self.directory.glob("app.db*"):
            path.unlink()
        restore(url=f"file://{self.bucket}", prefix="app.db", output=self.path)


def _group_runs(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.timeout(120 + 20 * KILLS)
def test_nothing_that_returned_is_missing(tmp_path, seed, scoreboard):
    """Processes commit durably, with a handle, after a fork of one, and without. Everything is
    killed at random moments, and the machine is lost: the bucket has every commit that returned."""
    rng = random.Random(seed)
    machine = Machine(tmp_path)
    sidecars = 0
    for kill in range(KILLS):
        process = machine.begin(f"round{kill}")
        if rng.random() < 0.25:  # the next sidecar has to answer those who wait
            time.sleep(rng.random() * LONGEST / 2)
            machine.kill_sidecar()
            sidecars += 1
        time.sleep(rng.random() * LONGEST)
        machine.kill(process, rng)
        machine.lose()
        missing = machine.acknowledged() - commits_in(machine.path)
        assert not missing, f"{len(missing)} commits are missing: {sorted(missing)[:5]}"
    returned = len(machine.acknowledged())
    assert returned > KILLS
    scoreboard(
        "durable commits that returned and are missing after the loss of the machine",
        f"0 of {returned} ({KILLS} kills of everything, {sidecars} of the sidecar alone before)",
    )
