"""Programs × states × signals, as the first process of a container and not.

A short run takes a few cells at random; a failed one names its cell.
"""

import contextlib
import fcntl
import itertools
import os
import pty
import random
import shutil
import signal
import subprocess
import sys
import termios
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from replicator.errors import NotRunning, ReplicatorError
from replicator.sidecar.control_client import ask
from tests.helpers.command_line import cache_of
from tests.helpers.proxy import drip
from tests.helpers.replication import LONG, App, wait_for
from tests.plugins.scoreboard import effort

CELLS = effort(5, 392)  # in all pieces
PIECES = effort(1, 8)  # tests, which may run at the same time
NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
PROGRAM = [sys.executable, "-m", "replicator"]
ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
SIGNALS = (*ENDING, signal.SIGUSR1, signal.SIGUSR2)
STATES = {
    "run": ("starting", "following", "flushing", "standby"),
    "run around": ("starting", "following", "flushing", "standby"),
} | dict.fromkeys(("drill", "diff", "open", "restore"), ("starting", "hanging"))

# A server: ends with 3 after a signal that ends servers, and notes the others. It does not sleep
# in pause(2): a signal that arrives right before would have no effect until the next one.
SERVER = """
import os, signal, sys, time
def note(number, frame):
    os.write(log, b"%d\\n" % number)
    if number in (2, 3, 15):
        sys.exit(3)
log = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
for number in (1, 2, 3, 10, 12, 15):
    signal.signal(number, note)
os.write(log, b"ready\\n")
while True:
    time.sleep(0.02)
"""


@dataclass(frozen=True)
class Cell:
    """One combination. ``twice``: the same signal comes a second time at once. ``terminal``: it is
    Ctrl-C, which the kernel sends to each process of the terminal."""

    program: str
    state: str
    number: signal.Signals
    twice: bool
    first: bool  # the first process of a PID namespace
    terminal: bool = False

    @property
    def ends(self):
        return self.number in ENDING

    @property
    def reads(self):
        """It is no sidecar: its only work is to read the archive."""
        return not self.program.startswith("run")

    @property
    def serves(self):
        """Its command runs, and gets each signal."""
        return self.program == "run around" and self.state in ("following", "standby")


def every_cell(*, namespaces):
    """The signal that begins a flush is the first one: it has no second one in addition."""
    cells = [
        Cell(program, state, number, twice, first)
        for program, states in STATES.items()
        for state, number, twice, first in itertools.product(
            states, SIGNALS, (False, True), (False, True)
        )
        if (namespaces or not first) and not (state == "flushing" and twice)
    ]
    typed = [cell for cell in cells if cell.number == signal.SIGINT and not cell.twice]
    return cells + [replace(cell, terminal=True) for cell in typed]


class Runner:
    """Runs cells, one after another, on one archive."""

    def __init__(self, cli, proxy, path):
        self.cli, self.proxy, self.path = cli, proxy, path
        self.temporary = cli.directory("temporary")
        self.hung = 0
        self.number = 0
        self.active = None  # the sidecar for which another one stands by

    def run(self, cell):
        self.number += 1
        self.log = self.cli.home / f"log-{self.number}"
        with contextlib.ExitStack() as stack:
            stack.callback(self.proxy.heal)
            pid, process = self.start(cell, stack)
            self.reach(cell, pid)
            if cell.terminal:
                os.write(self.terminal, b"\x03")
            else:
                os.kill(pid, cell.number)
            if cell.twice:
                wait_for(lambda: not has_signal(pid, cell.number, "SigPnd", "ShdPnd"))
                if cell.reads and cell.ends:
                    wait_for(lambda: not has_signal(pid, cell.number, "SigCgt"))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, cell.number)
            self.check(cell, pid, process)
            if cell.state == "standby":
                assert self.waiting() == []

    def store_hangs(self):
        async def count(exchange):
            self.hung += 1
            return await drip(exchange)

        self.seen = self.hung
        self.proxy.fault(count, times=None)

    def start(self, cell, stack):
        """(its process id, the process that starts it)."""
        if cell.state == "standby" and self.active is None:
            self.active = self.cli.sidecar(self.path)
            self.active.until_following()
            wait_for(lambda: "decided" in (cache_of(self.path) / "lock").read_text())
        if cell.state != "standby" and not cell.reads:
            self.end_active()
        if cell.state == "hanging":
            self.store_hangs()
        output = stack.enter_context((self.cli.home / f"output-{self.number}").open("wb"))
        process = subprocess.Popen(
            [*(NAMESPACE if cell.first else []), *PROGRAM, *map(str, self.arguments(cell))],
            env=self.cli.environment | {"TMPDIR": str(self.temporary)},
            stdout=output,
            stderr=output,
            **(self.in_terminal(stack) if cell.terminal else {"stdin": subprocess.DEVNULL}),
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        if not cell.first:
            return process.pid, process
        (pid,) = wait_for(lambda: children_of(process.pid))
        return pid, process

    def in_terminal(self, stack):
        """The options of a process whose terminal is a new one."""
        self.terminal, end = pty.openpty()
        stack.callback(os.close, end)
        stack.callback(os.close, self.terminal)
        control = partial(fcntl.ioctl, 0, termios.TIOCSCTTY, 0)
        return {"stdin": end, "start_new_session": True, "preexec_fn": control}

    def end_active(self):
        if self.active is not None:
            assert self.active.stop() == 0
            self.active = None

    def arguments(self, cell):
        where = self.cli.options_through(self.proxy.url)
        standby = ["--standby"] if cell.state == "standby" else []
        return {
            "run": ["run", self.path, *where, *standby],
            "run around": ["run", self.path, *where, "--", sys.executable, "-c", SERVER, self.log],
            "drill": ["drill", *where],
            "diff": ["diff", *where, "--from", "1"],
            "open": ["open", *where, "--", "sleep", "1000"],
            "restore": ["restore", *where, "--output", self.cli.home / f"copy-{self.number}.db"],
        }[cell.program]

    @property
    def output(self):
        return (self.cli.home / f"output-{self.number}").read_text()

    def notes(self):
        """The words of the server."""
        return self.log.read_text().split() if self.log.exists() else []

    def reach(self, cell, pid):
        """Waits until the process is in the state of the cell."""
        if cell.state == "starting":
            # A sidecar takes signals one by one; the first process does so until its end.
            # Not SIGTERM: unshare(1) blocks it, until the program begins without its signals.
            meaning = "SigCgt" if cell.reads else "SigBlk"
            wait_for(
                lambda: has_signal(pid, signal.SIGQUIT, meaning) or children_of(pid),
                interval=0.001,
            )
            return
        if cell.state == "hanging":
            wait_for(lambda: self.hung > self.seen)
            return
        if cell.state == "standby":
            wait_for(lambda: len(self.waiting()) == 1)
            assert cell.first or self.waiting() == [pid]
        else:
            wait_for(lambda: "following" in self.output)
        if cell.program == "run around":
            wait_for(lambda: "ready" in self.notes())
        self.commit()
        if cell.state == "flushing":
            wait_for(self.flushed)
            self.store_hangs()
            self.commit()
            wait_for(lambda: self.hung > self.seen)
            os.kill(pid, signal.SIGTERM)
            wait_for(lambda: "a second signal ends at once" in self.output)

    def waiting(self):
        """The processes that the status of the active sidecar names."""
        return ask(cache_of(self.path), {"command": "status"})["standby"]

    def flushed(self):
        with contextlib.suppress(NotRunning):  # its socket opens a moment later
            return ask(cache_of(self.path), {"command": "flush", "timeout": LONG})

    def commit(self):
        with App(self.path) as app:
            app.insert()

    def check(self, cell, pid, process):
        reloads = cell.serves and cell.number == signal.SIGHUP
        if cell.ends and not reloads:
            self.ended(cell, process)
        elif cell.reads:
            self.killed(cell, pid, process)
        else:
            self.stayed(cell, pid, process)
        if cell.terminal and cell.serves:
            assert self.notes() == ["ready", str(int(cell.number))]
        if cell.program != "run around" or cell.state != "starting":  # the command has no handlers
            assert "Traceback" not in self.output, self.output

    def ended(self, cell, process):
        code = process.wait(LONG)
        signalled = 128 + cell.number
        if cell.reads:
            assert code in ({signalled, -cell.number} if cell.twice else {signalled}), self.output
            if not cell.twice:
                assert list(self.temporary.iterdir()) == []
            remove(self.temporary)
        elif cell.state == "starting":
            assert code in {signalled, 0, 3, 5}, self.output
        elif cell.state == "flushing":
            assert code == (3 if cell.program == "run around" else 5), self.output
        elif cell.program == "run":
            assert code in ({0, 5} if cell.twice else {0}), self.output
        else:
            assert code in ({3, signalled} if cell.twice else {3}), self.output
        if not cell.reads and not cell.twice and cell.state in ("following", "standby"):
            assert "everything up to txid" in self.output, self.output

    def killed(self, cell, pid, process):
        """They give no meaning to these signals. The kernel drops them in a first process."""
        if cell.first:
            os.kill(pid, signal.SIGTERM)
            assert process.wait(LONG) == 128 + signal.SIGTERM
        else:
            assert process.wait(LONG) == -cell.number
        remove(self.temporary)

    def stayed(self, cell, pid, process):
        """The sidecar stays, or its command does, which has noted the signal."""
        if cell.serves:
            wait_for(lambda: str(int(cell.number)) in self.notes())
        codes = {5 if cell.state == "flushing" else 0}
        if cell.program == "run around":
            codes = {3}
        if cell.state == "starting":
            codes.add(128 + signal.SIGTERM)
            if cell.program == "run around":  # the command may have no handlers yet
                codes.add(128 + cell.number)
        else:
            assert process.poll() is None, self.output
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        assert process.wait(LONG) in codes, self.output


def children_of(pid):
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def has_signal(pid, number, *fields):
    """True if a signal is in one of these masks of proc(5); False if the process has ended."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        facts = dict(line.split(":\t", 1) for line in lines)
        masks = [int(facts[each], 16) for each in fields]
        return any(mask & 1 << number - 1 for mask in masks) and facts["State"][0] != "Z"
    return False


def remove(directory):
    for each in directory.iterdir():
        shutil.rmtree(each) if each.is_dir() else each.unlink()


def has_namespaces():
    if shutil.which("unshare") is None:
        return False
    done = subprocess.run([*NAMESPACE, "true"], check=False, stderr=subprocess.DEVNULL)
    return done.returncode == 0


@pytest.mark.timeout(LONG * (2 + CELLS // PIECES))
@pytest.mark.parametrize("piece", range(PIECES))
def test_every_signal_in_every_state(cli, fault_proxy, path, seed, piece, scoreboard):
    """Signals end a sidecar durably and a reader without a rest, reach the command, or have no
    effect; a second one never waits for a store that hangs; and no state ends in a traceback."""
    with App(path) as app:
        app.insert(60)
        sidecar = cli.sidecar(path)
        sidecar.until_following()
        assert sidecar.stop() == 0
    cells = every_cell(namespaces=has_namespaces())[piece::PIECES]
    cells = random.Random(seed).sample(cells, min(len(cells), CELLS // PIECES))
    runner = Runner(cli, fault_proxy, path)
    failed = []
    for cell in sorted(cells, key=lambda cell: cell.state):
        began = time.monotonic()
        try:
            runner.run(cell)
        except (AssertionError, OSError, ReplicatorError, subprocess.SubprocessError) as error:
            error.add_note(f"{cell}")
            failed.append(error)
        print(f"{time.monotonic() - began:5.1f} s {cell}")  # noqa: T201
    runner.end_active()
    if failed:
        raise ExceptionGroup(f"{len(failed)} of {len(cells)} cells", failed)
    sidecar = cli.sidecar(path)
    sidecar.until_following()
    assert sidecar.stop() == 0
    copy = cli.home / "copy.db"
    assert cli.call("restore", *cli.bucket_options, "--output", copy).code == 0
    with App(path) as app:
        assert copy.read_bytes() == app.image()
    scoreboard("signals in every state", f"{len(cells)} combinations, each ended as documented")
