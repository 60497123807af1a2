"""strace: every system call of one thread counted, or one of them made fatal.

The processes come from cycle.py, which lets a thread wait until strace has attached to it. So the
count begins at the thread's first step, and no other thread's calls are among them.
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

import pytest

CYCLE = Path(__file__).parents[1] / "programs" / "cycle.py"
# All that changes a file, a name, or a lock; what merely looks leaves the same state behind.
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


class Stage:
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
        """The exit code of a process that does ``act``; strace attaches to its thread ``role``
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
        """(role, call) → how often, from one run for each thread in a fresh copy of ``place``."""
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
        """Whether it was killed right before that call."""
        code = self.run(act, place, role, *_inject(call, "signal=SIGKILL", nth))
        assert code in (-9, 0), (place / "errors").read_text()
        return code == -9

    def failed(self, act, place, role, call, nth, error):
        """The exit code of a process to whom that call answered ``error``."""
        return self.run(act, place, role, *_inject(call, f"error={error}", nth))

    def leave(self):
        """Also of a process that hangs, which is a child of the maker."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.maker.pid, signal.SIGKILL)
        self.maker.communicate()


def _inject(call, what, nth):
    return "-e", f"trace={call}", "-e", f"inject={call}:{what}:when={nth}"


def fresh(place, name):
    """A copy of a directory beside it."""
    copy = place.with_name(name)
    shutil.copytree(place, copy)
    return copy


def reason_to_skip():
    if shutil.which("strace") is None:
        return "strace is not installed"
    done = subprocess.run(
        ["strace", "-o", "/dev/null", "true"], capture_output=True, check=False, text=True
    )
    return f"strace may not trace here: {done.stderr.strip()}" if done.returncode else ""


@pytest.fixture
def stage():
    if reason := reason_to_skip():
        pytest.skip(reason)
    made = Stage()
    yield made
    made.leave()
