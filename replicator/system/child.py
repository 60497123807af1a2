"""Waits for a child process without delaying the handlers of signals.

Owns the wait. The kernel may deliver a signal to any thread, but Python runs its handler in the
main thread. There a plain ``waitpid`` keeps sleeping, and a handler that should forward the signal
to the child does not run.
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
    """The exit code of ``child``, ``-N`` if signal N ended it. Handlers of signals run during the
    wait, except in a thread other than the main one."""
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
