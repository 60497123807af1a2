"""Signals of a sidecar: waited for, forwarded to a command, and safe at any moment."""

import os
import signal
import subprocess
import sys
import threading

from replicator.sidecar.signals import Signals
from tests.helpers.replication import LONG

STRESS = """
import os, signal, time
from replicator.sidecar.signals import Signals

with Signals() as signals:
    signals.install()
    if not (sender := os.fork()):
        while True:
            try:
                os.kill(os.getppid(), signal.SIGTERM)
            except ProcessLookupError:
                os._exit(0)
            time.sleep(0.00003)
    received = 0
    while received < 2000:
        received += signals.wait(0.0001)
        signals.rearm()
    os.kill(sender, signal.SIGKILL)
    os.waitpid(sender, 0)
print(received)
"""


def test_a_signal_ends_a_wait():
    """Until rearm() every wait returns at once; afterwards a wait needs a new signal."""
    signals = Signals()
    assert not signals.wait(0)
    threading.Timer(0.01, signals.handle, [signal.SIGTERM]).start()
    assert signals.wait(LONG)
    assert signals.wait(LONG)
    signals.rearm()
    assert not signals.wait(0.01)
    assert not signals.received


def test_handlers_are_removed_at_the_end():
    """They are there from install() to the end of the context."""
    before = signal.getsignal(signal.SIGTERM)
    with Signals() as signals:
        assert signal.getsignal(signal.SIGTERM) == before
        signals.install()
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.wait(LONG)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_before_the_command_is_known_ends_it():
    """No signal is lost between the start of the command and forwarded_to()."""
    signals = Signals()
    signals.handle(signal.SIGTERM)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with signals.forwarded_to(child):
        assert child.wait(LONG) == -signal.SIGTERM


def test_a_signal_may_interrupt_the_wait_at_any_moment():
    """A handler that needs a lock which the interrupted wait holds would block for ever: with
    threading.Event that took less than 100 000 signals."""
    done = subprocess.run(
        [sys.executable, "-c", STRESS],
        capture_output=True,
        text=True,
        timeout=LONG,
        check=True,
    )
    assert int(done.stdout) >= 2000
