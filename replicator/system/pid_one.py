"""The first process of a container: starts the real one, passes signals to it, reaps orphans.

The kernel drops signals to process 1 that have no handler, and gives it the orphans of all other
processes, whose ends it must collect. A small process does both, and the sidecar is its child.

Owns: that process. Refuses: to run anything else in it.
"""

from __future__ import annotations

import os
import signal

FROM_KERNEL = 0x80  # SI_KERNEL: a terminal sends it, to each process of its foreground group


def is_first() -> bool:
    """True in the first process of a PID namespace."""
    return os.getpid() == 1


def live_as_parent(passed: frozenset[signal.Signals]) -> None:
    """Returns in a child process; the parent stays here and exits as the child does.

    The parent passes the signals ``passed`` on, which the caller has blocked, except those that a
    terminal sent to both.
    """
    taken = {*passed, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, taken)
    child = os.fork()
    if not child:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    while True:
        arrived = signal.sigwaitinfo(taken)
        if arrived.si_signo != signal.SIGCHLD:
            if arrived.si_code != FROM_KERNEL:
                os.kill(child, arrived.si_signo)
        elif (code := _reap(child)) is not None:
            os._exit(128 - code if code < 0 else code)


def _reap(child: int) -> int | None:
    """Collects every process that ended; the exit code of ``child``, ``-N`` if signal N ended it,
    None while it runs."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if pid in {0, child}:
            return os.waitstatus_to_exitcode(status) if pid else None
