"""Runs the command line in processes, with a bucket on a real server.

`CommandLine` is one user: an environment with credentials, a bucket, a home directory. It searches
all output of the processes for tracebacks.
"""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from replicator.errors import NotRunning
from replicator.sidecar.control_client import ask
from replicator.store.s3 import S3Store
from tests.helpers.replication import LONG, wait_for


@dataclass(frozen=True)
class Done:
    """The result of a command."""

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


def free_of_tracebacks(text):
    """``text``, which must hold no traceback."""
    assert "Traceback" not in text, text
    return text


def cache_of(db):
    """The cache directory that a replicator of ``db`` uses by default."""
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
    def output(self):
        """All that the process has written so far."""
        return free_of_tracebacks(self.log.read_text())

    def until_written(self, text):
        """Waits until the text is in the output; a thread writes the log, later than the status
        shows the same."""
        wait_for(lambda: text in self.output or self.process.poll() is not None, interval=0.02)
        assert text in self.output

    def status(self):
        """None while no sidecar answers."""
        with contextlib.suppress(NotRunning):
            return ask(cache_of(self.db), {"command": "status"})
        return None

    def until(self, condition):
        """Waits until the status satisfies the condition; returns the status."""

        def met():
            assert self.process.poll() is None, self.output
            status = self.status()
            return status if status is not None and condition(status) else None

        return wait_for(met, interval=0.02)

    def until_following(self):
        return self.until(lambda status: status["state"] == "following" and status["healthy"])

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self):
        """The exit code."""
        code = self.process.wait(LONG)
        free_of_tracebacks(self.output)
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


class CommandLine:
    """One user on one machine, with a bucket of their own unless one is given."""

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
        """A store through which the test reads the bucket."""
        return S3Store(
            self.bucket,
            endpoint_url=self.server.endpoint_url,
            credentials=(self.server.access_key, self.server.secret_key),
        )

    @property
    def bucket_options(self):
        """The options that name the bucket."""
        return self.options_through(self.endpoint_url)

    def options_through(self, endpoint_url):
        """The same, with another way to the server."""
        return ("--bucket", self.bucket, "--endpoint-url", endpoint_url)

    def call(self, *arguments, cwd=None, timeout=LONG, **environment):
        """Runs one command to its end."""
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

    def sidecar(self, db, *options, bucket_options=None, command=(), **environment):
        """Starts a sidecar; `close` ends it at the latest."""
        arguments = [
            str(db),
            *(self.bucket_options if bucket_options is None else bucket_options),
            *map(str, options),
        ]
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

    def close(self):
        """Kills the sidecars that still run."""
        for sidecar in self._sidecars:
            if sidecar.process.poll() is None:
                sidecar.process.kill()
                sidecar.process.wait()
