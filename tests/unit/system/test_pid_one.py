"""The first process of a container: passes signals on, reaps orphans, ends as its child does."""

import os
import signal
import subprocess
import sys

import pytest

from tests.helpers.replication import LONG

# A subreaper (prctl 36) gets orphans as process 1 does, and needs no namespace.
PROGRAM = """
import ctypes, os, signal, sys, time
from replicator.sidecar import signals
from replicator.system import pid_one
ctypes.CDLL(None).prctl(36, 1)
signals.hold()
pid_one.live_as_parent(signals.ENDING | signals.PASSED)
with signals.Signals() as held:
    exec(sys.argv[1])
"""


def program(body):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, body], stdout=subprocess.PIPE, text=True
    )


def end_of(process):
    out, _ = process.communicate(timeout=LONG)
    return process.returncode, out.split()


@pytest.mark.parametrize(
    ("end", "code"),
    [("sys.exit(7)", 7), ("os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL)],
)
def test_it_ends_as_its_child_does(end, code):
    """128 + N if signal N ended the child, as a shell."""
    assert end_of(program(end))[0] == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_reach_the_child(number):
    """Also one that comes before the child is ready."""
    body = "print('ready', flush=True); print(held._take(1000).number); sys.exit(3)"
    process = program(body)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert end_of(process) == (3, [str(int(number))])


def test_orphans_are_reaped():
    """None stays as a zombie, and none ends the parent."""
    body = """
parent = os.getppid()
for _ in range(20):
    if not os.fork():
        if not os.fork():
            time.sleep(0.05)
        os._exit(0)
while True:
    try:
        os.waitpid(-1, 0)
    except ChildProcessError:
        break

def children():
    with open(f"/proc/{parent}/task/{parent}/children") as file:
        return file.read().split()

while children() != [str(os.getpid())]:
    time.sleep(0.01)
print("alone")
"""
    assert end_of(program(body)) == (0, ["alone"])


def test_only_the_first_process_is_one():
    """A sidecar elsewhere needs no parent of its own."""
    from replicator.system.pid_one import is_first

    assert is_first() == (os.getpid() == 1)
