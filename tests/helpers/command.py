"""The command line as a user meets it: processes, a bucket of one's own on a real server.

`Desk` is one user: an environment with credentials, a bucket, a home directory. Every output
that passes through it is searched for tracebacks.
"""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from replicator.errors import NotRunning
from replicator.sidecar.control import ask
from replicator.store.s3 import S3Store

LONG = 60.0  # seconds after which a test is stuck; nothing is ever timed against it


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        """The one document on stdout."""
        return json.loads(self.out)

    @property
    def error(self):
        """The JSON error, which is the last line on stderr."""
        return json.loads(self.err.splitlines()[-1])


def wait_for(condition):
    """Poll until the condition holds; its value."""
    deadline = time.monotonic() + LONG
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come to pass")


def free_of_tracebacks(text):
    assert "Traceback" not in text, text
    return text


def cache_of(db):
    return db.with_name(f".{db.name}-replicator")


class Sidecar:
    """A ``replicator run`` in the background; its log goes to a file."""

    def __init__(self, arguments, db, log, environment):
        self.db, self.log = db, log
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "replicator", "run", *arguments],
                stdout=stderr,
                stderr=stderr,
                stdin=subprocess.DEVNULL,
                env=environment,
                cwd=db.parent,
            )

    @property
    def pid(self):
        return self.process.pid

    @property
    def said(self):
        return free_of_tracebacks(self.log.read_text())

    def status(self):
        """None while nobody answers."""
        with contextlib.suppress(NotRunning):
            return ask(cache_of(self.db), {"command": "status"})
        return None

    def until(self, condition):
        """Wait until the status satisfies the condition; the status."""

        def met():
            assert self.process.poll() is None, self.said
            status = self.status()
            return status if status is not None and condition(status) else None

        return wait_for(met)

    def until_following(self):
        return self.until(lambda status: status["state"] == "following" and status["healthy"])

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self):
        """The exit code."""
        code = self.process.wait(LONG)
        free_of_tracebacks(self.said)
        return code

    def stop(self):
        self.signal()
        return self.wait()

    def peak_rss(self):
        """Bytes; VmHWM of proc(5)."""
        return self._memory("VmHWM")

    def rss(self):
        """Bytes; VmRSS of proc(5)."""
        return self._memory("VmRSS")

    def _memory(self, field):
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"no {field}")

    def cpu_seconds(self):
        """User and system time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Desk:
    """One user at one machine, with a bucket."""

    def __init__(self, home, server, *, bucket=None, endpoint_url=None):
        self.home, self.server = home, server
        self.bucket = bucket or f"bucket-{secrets.token_hex(6)}"
        self.endpoint_url = endpoint_url or server.endpoint_url
        self.environment = {
            **os.environ,
            **server.environment(),
            "COLUMNS": "100",
            "PYTHONUNBUFFERED": "1",
        }
        self._sidecars = []
        if bucket is None:
            with contextlib.closing(self.store()) as store:
                store.create_bucket()

    def store(self):
        """For the test to look into the bucket."""
        return S3Store(
            self.bucket,
            endpoint_url=self.server.endpoint_url,
            credentials=(self.server.access_key, self.server.secret_key),
        )

    @property
    def place(self):
        return ("--bucket", self.bucket, "--endpoint-url", self.endpoint_url)

    def call(self, *arguments, cwd=None, timeout=LONG, **environment):
        """Run one command to its end."""
        done = subprocess.run(
            [sys.executable, "-m", "replicator", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            cwd=cwd or self.home,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            env=self.environment | environment,
        )
        free_of_tracebacks(done.stdout + done.stderr)
        return Done(done.returncode, done.stdout, done.stderr)

    def sidecar(self, db, *options, place=None, command=(), **environment):
        """Start one; it ends with the desk at the latest."""
        arguments = [str(db), *(self.place if place is None else place), *map(str, options)]
        if command:
            arguments += ["--", *map(str, command)]
        log = self.home / f"sidecar-{len(self._sidecars)}.log"
        started = Sidecar(arguments, db, log, self.environment | environment)
        self._sidecars.append(started)
        return started

    def directory(self, name):
        path = self.home / name
        path.mkdir(parents=True)
        return path

    def leave(self):
        for sidecar in self._sidecars:
            if sidecar.process.poll() is None:
                sidecar.process.kill()
                sidecar.process.wait()


@pytest.fixture
def desk(seaweed, tmp_path):
    """A user with an empty bucket of their own on the real server."""
    desk = Desk(tmp_path, seaweed)
    yield desk
    desk.leave()
