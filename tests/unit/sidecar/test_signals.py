"""Signals of a sidecar: held, passed to a command, and never lost."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from replicator.sidecar.signals import ENDING, PASSED
from tests.helpers.replication import LONG, wait_for

# A program that holds its signals, and runs the code of a test.
HELD = """
import os, signal, sys, threading, time
from replicator.sidecar import signals
signals.hold()
with signals.Signals() as held:
    exec(sys.argv.pop(1))
"""

# Notes each signal in a file, and ends after SIGTERM.
NOTES = """
import os, signal, sys, time
def note(number, frame):
    print(signal.Signals(number).name, file=log, flush=True)
    if number == signal.SIGTERM:
        sys.exit(3)
log = open(sys.argv[1], "a")
for number in map(int, sys.argv[2:]):
    signal.signal(number, note)
print("ready", file=log, flush=True)
while True:
    time.sleep(0.02)  # a signal right before pause(2) would wait for the next one
"""


def program(body, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-c", HELD, body, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def waits(process, number):
    """True while a signal that was sent to the process is not taken; ``ShdPnd`` of proc(5)."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    pending = int(status.partition("ShdPnd:")[2].split()[0], 16)
    return bool(pending >> (number - 1) & 1)


def output_of(process):
    out, _ = process.communicate(timeout=LONG)
    return process.returncode, out.split()


def test_no_signal_is_lost_before_the_wait():
    """They are held from the first moment on, in every thread."""
    body = """
threading.Thread(target=time.sleep, args=(0.2,)).start()
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(0.1)
print(held.wait(60), held.received)
os.kill(os.getpid(), signal.SIGINT)
while not held.hurry():
    time.sleep(0.01)
print(held.hurry())
"""
    assert output_of(program(body)) == (0, ["True", "15", "True"])


@pytest.mark.parametrize("number", sorted(ENDING), ids=lambda number: number.name)
def test_a_signal_that_ends_a_wait(number):
    """The wait returns as soon as it arrives."""
    process = program("print('ready', flush=True); print(held.wait(1000))")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert output_of(process) == (0, ["True"])


def test_a_process_that_was_stopped_during_the_wait_receives_nothing():
    """A suspended container or laptop: the wait is over when the process continues. CPython then
    returns a signal that never came, with any number."""
    body = """
import subprocess
for _ in range(3):
    order = "sleep 0.1; kill -STOP $0; sleep 0.6; kill -CONT $0"
    child = subprocess.Popen(["sh", "-c", order, str(os.getpid())])
    print(held.wait(0.4), held.hurried)
    child.wait()
"""
    assert output_of(program(body)) == (0, ["False"] * 6)


@pytest.mark.parametrize("number", sorted(PASSED), ids=lambda number: number.name)
def test_a_signal_without_a_meaning(number):
    """It ends nothing."""
    body = "os.kill(os.getpid(), int(sys.argv[1])); print(held.wait(0.05), held.hurry())"
    assert output_of(program(body, str(int(number)))) == (0, ["False", "False"])


def test_a_signal_that_the_parent_ignores():
    """As with nohup: the command ignores it too."""

    def ignore():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    body = """
os.kill(os.getpid(), signal.SIGHUP)
print(held.wait(0.05), flush=True)
held.run(["sh", "-c", "kill -HUP $$; echo alive"], lambda pid: None)
"""
    process = program(body, preexec_fn=ignore)
    assert output_of(process) == (0, ["False", "alive"])


@pytest.mark.parametrize("number", sorted(ENDING), ids=lambda number: number.name)
def test_work_that_may_be_killed_ends_at_once(number):
    """The exit code is 128 + N, as in a shell."""
    body = """
with held.ending_at_once():
    print("ready", flush=True)
    time.sleep(1000)
"""
    process = program(body)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert output_of(process)[0] == 128 + number


def test_the_command_gets_every_signal(tmp_path):
    """Also those that would end a sidecar, which ends with the command."""
    log = tmp_path / "log"
    numbers = [str(int(n)) for n in sorted(ENDING | PASSED)]
    body = "print(held.run(sys.argv[1:], lambda pid: print(pid > 1)), held.received)"
    process = program(body, sys.executable, "-c", NOTES, str(log), *numbers)
    for number in sorted(ENDING | PASSED, key=lambda n: n == signal.SIGTERM):
        wait_for(lambda: log.exists() and "ready" in log.read_text())
        before = len(log.read_text().split())
        process.send_signal(number)
        wait_for(lambda b=before: len(log.read_text().split()) > b)
    assert output_of(process) == (0, ["True", "3", "0"])
    names = log.read_text().split()[1:]
    assert sorted(names) == sorted(n.name for n in ENDING | PASSED)


def test_an_interrupt_of_the_terminal_reaches_the_command_once(tmp_path):
    """The kernel sends it to every process of the foreground group. A second one would make a
    server quit in the middle of its requests."""
    log, body = tmp_path / "log", "sys.exit(held.run(sys.argv[1:], lambda pid: None))"
    numbers = [str(int(n)) for n in (signal.SIGINT, signal.SIGTERM)]
    command = [sys.executable, "-c", NOTES, str(log), *numbers]
    pid, terminal = pty.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            os.execv(sys.executable, [sys.executable, "-c", HELD, body, *command])
        os._exit(1)
    wait_for(lambda: log.exists() and "ready" in log.read_text())
    os.write(terminal, b"\x03")
    wait_for(lambda: "SIGINT" in log.read_text())
    os.kill(pid, signal.SIGTERM)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 3
    assert log.read_text().split() == ["ready", "SIGINT", "SIGTERM"]


def test_a_signal_of_the_terminal_at_the_end_of_the_command_is_no_second_one():
    """It ended the command, and arrives here a moment later; a signal of a process still counts."""
    body = """
held.deliver(signals.Arrival(signal.SIGINT, from_terminal=True))
print(held.run(["true"], lambda pid: None), held.hurry())
held.deliver(signals.Arrival(signal.SIGINT, from_terminal=True))
print(held.hurry())
held.deliver(signals.Arrival(signal.SIGTERM))
print(held.hurry())
"""
    words = ["0", "False", "False", "True"]
    assert output_of(program(body)) == (0, words)


def test_a_signal_while_the_command_starts_reaches_it():
    """None is lost between two states of the process: 300 commands started under a rain of them."""
    body = """
def rain():
    while not over.is_set():
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.0005)
over = threading.Event()
threading.Thread(target=rain).start()
codes = {held.run(["sh", "-c", "exit 7"], lambda pid: None) for _ in range(300)}
over.set()
print(codes <= {7, -signal.SIGUSR1})
"""
    assert output_of(program(body)) == (0, ["True"])


def test_a_signal_of_before_the_command_has_no_meaning_for_it():
    """A reload that came too early would end it, because it has no handler yet. One that ends
    servers still does."""
    body = """
held.deliver(signals.Arrival(signal.SIGUSR1))
held.deliver(signals.Arrival(signal.SIGTTIN))
print(held.run(["sh", "-c", "sleep 0.3; exit 7"], lambda pid: None))
held.deliver(signals.Arrival(signal.SIGHUP))
print(held.run(["sleep", "1000"], lambda pid: None))
"""
    assert output_of(program(body)) == (0, ["7", str(-signal.SIGHUP)])


def test_work_that_ends_during_a_signal_hides_no_later_one():
    """The command gets those that follow."""
    body = """
with held.ending_at_once(lambda code: time.sleep(0.2)):
    held.deliver(signals.Arrival(signal.SIGTERM))
    time.sleep(0.1)
script = "trap 'exit 5' USR2; echo ready; while :; do sleep 0.01; done"
print(held.run(["sh", "-c", script], lambda pid: None))
"""
    process = program(body)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGUSR2)
    assert output_of(process) == (0, ["5"])


def test_the_signals_that_have_arrived_are_taken_without_a_pause():
    """The first that ends a sidecar counts; the others have no meaning."""
    body = """
print(held.so_far())
for number in (signal.SIGUSR1, signal.SIGQUIT, signal.SIGTERM):
    held.deliver(signals.Arrival(number))
print(held.so_far(), held.received, held.hurry())
"""
    assert output_of(program(body)) == (0, ["0", "3", "3", "True"])


def test_a_command_that_cannot_run_raises():
    """Before anything else happens."""
    body = """
try:
    held.run(["/no/such/command"], print)
except OSError as error:
    print(type(error).__name__)
os.kill(os.getpid(), signal.SIGTERM)
print(held.wait(60))
"""
    assert output_of(program(body)) == (0, ["FileNotFoundError", "True"])


def test_a_process_that_was_stopped_received_no_signal():
    """sigtimedwait would return an arbitrary number after SIGCONT, once its time is over."""
    body = """
print("ready", flush=True)
for _ in range(20):
    received = held.wait(0.05)
    assert not received
print(held.hurry())
"""
    process = program(body)
    assert process.stdout.readline() == "ready\n"
    while process.poll() is None:
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.06)  # longer than one wait of the process
        process.send_signal(signal.SIGCONT)
    assert output_of(process) == (0, ["False"])


def test_only_a_signal_that_ends_hurries():
    """Others are forgotten."""
    body = """
held.deliver(signals.Arrival(signal.SIGUSR1))
print(held.hurry())
held.deliver(signals.Arrival(signal.SIGUSR1))
held.deliver(signals.Arrival(signal.SIGTERM))
print(held.hurry())
"""
    assert output_of(program(body)) == (0, ["False", "True"])


# Runs a command that leaves a process, and waits for that; prints the exit code and the rest.
LEAVES = """
from replicator.system.offspring import Offspring
rest = Offspring()
script, end, patience = sys.argv[1], sys.argv[2] == "end", float(sys.argv[3])
code = held.run(["sh", "-c", script], lambda pid: None, rest.environment())
print(len(rest.alive()), flush=True)
left = held.outlast(rest, end=end, patience=patience)
print(code, held.passed, len(left))
rest.send(signal.SIGKILL)
"""


def test_the_orphans_of_a_command_get_sigterm():
    """The wait ends with them; its time is not used up."""
    process = program(LEAVES, "sleep 1000 & exit 4", "end", str(LONG * 10))
    assert output_of(process) == (0, ["1", "4", "0", "0"])


def ignores_sigterm(tmp_path, code):
    """A script that leaves a process which ignores SIGTERM, and ends once that one does."""
    ready = tmp_path / "ready"
    return f"""
        (trap '' TERM; touch '{ready}'; exec sleep 1000) &
        until [ -e '{ready}' ]; do sleep 0.01; done
        exit {code}
    """


def test_an_orphan_that_ignores_sigterm_is_left(tmp_path):
    """After its time the wait ends, and names it."""
    process = program(LEAVES, ignores_sigterm(tmp_path, 4), "end", "0.2")
    code, out = output_of(process)
    assert (code, out[1:3]) == (0, ["4", "0"])
    assert int(out[3]) >= 1


def test_a_process_that_is_meant_to_stay_is_waited_for():
    """It gets the signals in place of the command, and its end ends the wait."""
    process = program(LEAVES, "sleep 1000 & exit 0", "stay", str(LONG * 10))
    assert process.stdout.readline() == "1\n"
    process.send_signal(signal.SIGUSR1)  # ends `sleep`, as it would have ended the command
    assert output_of(process) == (0, ["0", "0", "0"])


def test_a_second_signal_ends_the_wait_for_orphans(tmp_path):
    """The first one is passed on, and begins the time that they have."""
    process = program(LEAVES, ignores_sigterm(tmp_path, 0), "stay", str(LONG * 10))
    assert process.stdout.readline() == "1\n"
    process.send_signal(signal.SIGTERM)
    wait_for(lambda: not waits(process, signal.SIGTERM))  # two of one number that wait are one
    process.send_signal(signal.SIGTERM)
    assert output_of(process) == (0, ["0", "0", "1"])


def test_the_signal_that_the_command_was_ended_with_is_known():
    """Its orphans are ended then, whatever its exit code."""
    process = program(
        LEAVES, "trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done", "end", "9"
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    code, out = output_of(process)
    assert (code, out[1:]) == (0, ["0", str(int(signal.SIGTERM)), "0"])
