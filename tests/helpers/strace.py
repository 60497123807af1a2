"""Counts every system call of one thread with strace, or makes one of them fatal.

cycle.py starts the processes and lets a thread wait until strace has attached to it. So the count
begins at the thread's first step and includes no call of another thread.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

CYCLE = Path(__file__).parents[1] / "programs" / "cycle.py"
# The calls that change a file, a name or a lock; a call that only reads leaves the same state.
CALLS = (
    "openat",
    "close",
    "write",
    "pwrite64",
    "pwritev",
    "ftruncate",
    "fallocate",
    "fsync",
    "fdatasync",
    "rename",
    "link",
    "unlink",
    "mkdir",
    "rmdir",
    "fcntl",
    "flock",
    "chmod",
    "fchmod",
    "fchown",
)


class ThreadTracer:
    """Starts processes of cycle.py and traces one thread of each."""

    def __init__(self):
        self.maker = subprocess.Popen(
            [sys.executable, str(CYCLE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, act, place, role=None, *options):
        """The exit code of a process that performs ``act``; strace attaches to its thread ``role``
        with ``options``."""
        if role is not None:
            os.mkfifo(place / "go")
        self.maker.stdin.write(json.dumps({"do": act, "place": str(place), "gate": role}) + "\n")
        self.maker.stdin.flush()
        tracer, said = None, self._said()
        if "tid" in said:
            tracer = self._attach(said["tid"], options)
            (place / "go").write_text("!")
            said = self._said()
        if tracer is not None:
            tracer.communicate()
        if role is not None:
            (place / "go").unlink()
        return said["code"]

    def _said(self):
        return json.loads(self.maker.stdout.readline())

    def _attach(self, tid, options):
        tracer = subprocess.Popen(
            ["strace", "-o", "/dev/null", *options, "-p", str(tid)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert "attached" in (line := tracer.stderr.readline()), line
        return tracer

    def counts(self, act, place):
        """{(role, call): count}, from one run per thread in a fresh copy of ``place``."""
        roles = self._roles(act, fresh(place, "roles"))
        found = Counter()
        for number, role in enumerate(roles):
            copy = fresh(place, f"count-{number}")
            trace = copy / "trace"
            self.run(act, copy, role, "-e", f"trace={','.join(CALLS)}", "-o", str(trace))
            lines = trace.read_text() if trace.exists() else ""
            calls = re.findall(r"^(\w+)\(", lines, re.MULTILINE)
            found.update((role, call) for call in calls)
            shutil.rmtree(copy)
        return found

    def _roles(self, act, copy):
        assert self.run(act, copy) == 0, (copy / "errors").read_text()
        roles = (copy / "roles").read_text().splitlines()
        shutil.rmtree(copy)
        return roles

    def killed(self, act, place, role, call, nth):
        """True if the process was killed right before that call."""
        code = self.run(act, place, role, *_inject(call, "signal=SIGKILL", nth))
        assert code in (-9, 0), (place / "errors").read_text()
        return code == -9

    def failed(self, act, place, role, call, nth, error):
        """The exit code of a process in which that call returned ``error``."""
        return self.run(act, place, role, *_inject(call, f"error={error}", nth))

    def close(self):
        """Kills the maker and its children, also those that hang."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.maker.pid, signal.SIGKILL)
        self.maker.communicate()


def _inject(call, what, nth):
    return "-e", f"trace={call}", "-e", f"inject={call}:{what}:when={nth}"


def fresh(place, name):
    """A copy of a directory, in the same parent."""
    copy = place.with_name(name)
    shutil.copytree(place, copy)
    return copy


def reason_to_skip():
    """Why strace cannot be used on this machine; empty if it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    done = subprocess.run(
        ["strace", "-o", "/dev/null", "true"], capture_output=True, check=False, text=True
    )
    return f"strace may not trace here: {done.stderr.strip()}" if done.returncode else ""
