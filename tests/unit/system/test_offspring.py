"""The processes of a command are found, also after their parents have ended."""

import os
import signal
import subprocess

from replicator.system.offspring import VARIABLE, Offspring
from tests.helpers.replication import LONG, wait_for


def start(offspring, script):
    return subprocess.Popen(["sh", "-c", script], env=offspring.environment())


def test_an_orphan_is_found_and_gets_signals():
    """A process in a session of its own whose parent has ended; until it has ended, too."""
    offspring, other = Offspring(), Offspring()
    assert start(offspring, "setsid sleep 1000 &").wait(LONG) == 0
    (orphan,) = wait_for(offspring.alive)
    assert other.alive() == []
    other.send(signal.SIGTERM)
    assert offspring.alive() == [orphan]
    offspring.send(signal.SIGTERM)
    wait_for(lambda: not offspring.alive())


def test_a_process_that_ended_and_was_not_collected_is_none():
    """A zombie writes nothing."""
    offspring = Offspring()
    child = start(offspring, "exit 3")
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert offspring.alive() == []
    assert child.wait() == 3


def test_a_command_inside_of_another_belongs_to_both(monkeypatch):
    """Each of the two waits for it."""
    outer, inner = Offspring(), Offspring()
    monkeypatch.setenv(VARIABLE, outer.environment()[VARIABLE])
    child = start(inner, "exec sleep 1000")
    assert wait_for(outer.alive) == wait_for(inner.alive) == [child.pid]
    child.kill()
    child.wait()


def test_without_proc_there_are_none(tmp_path):
    """The end of the command is then the end of the wait."""
    assert Offspring(proc=tmp_path / "missing").alive() == []
