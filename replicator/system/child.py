"""Waiting for a command of the user's, in such a way that no signal waits with us.

Owns the wait. The kernel may give a signal to any thread, and Python handles it in the main one,
which a plain ``waitpid`` keeps asleep: what should have been handed on then ends nothing.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import threading


def wait_for(child: subprocess.Popen[bytes]) -> int:
    """The exit code of ``child``, negative for a signal; handlers of signals run meanwhile."""
    if threading.current_thread() is not threading.main_thread():
        return child.wait()
    try:
        ended = os.pidfd_open(child.pid)
    except OSError:  # Linux before 5.3, or not allowed
        return child.wait()
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            while child.poll() is None:
                select.select([ended, reader.fileno()], [], [])
                with contextlib.suppress(BlockingIOError):
                    reader.recv(4096)
        finally:
            signal.set_wakeup_fd(before)
            os.close(ended)
    return child.wait()
