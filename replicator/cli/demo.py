"""``replicator demo``: lose a database on purpose, restore it, check that it is the same.

The demo uses a real S3 server, the real sidecar, a writer at full speed, and SIGKILL for all of
them. It compares the restored file byte by byte with an image of the lost database that SQLite
itself made.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from replicator.cli import options, output
from replicator.cli import restore as restore_command
from replicator.cli import status as status_command
from replicator.errors import DamageError, ReplicatorError
from replicator.model import ReplicationStatus, RestoreReport

_BUCKET = "demo"


def command(
    *,
    seconds: Annotated[
        float,
        options.option(
            "--seconds",
            envvar="REPLICATOR_DEMO_SECONDS",
            metavar="N",
            help="how long the application writes",
        ),
    ] = 5.0,
    as_json: options.AsJson = False,
) -> None:
    """Lose a database on purpose and restore it.

    Everything is real and runs on this machine: the S3 server, the sidecar, the SIGKILL.
    """
    from replicator.testing import SeaweedServer

    with _directory() as home, SeaweedServer(bucket=_BUCKET) as server:
        demo = Demo(home, server.endpoint_url, server.environment(), quiet=as_json)
        with contextlib.closing(demo):
            figures = demo.play(seconds)
    if as_json:
        output.emit_json(figures)
    require_identical(figures)


def require_identical(figures: dict[str, Any]) -> None:
    """``DamageError`` if the restored database is not the lost one."""
    if not figures["identical"]:
        raise DamageError(
            "the restored database differs from the lost one",
            hint="this is a bug; please report it",
        )


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="replicator-demo-"))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@dataclass
class Demo:
    """One run of the demo: its directory, its processes, its figures."""

    home: Path
    endpoint_url: str
    credentials: dict[str, str]
    quiet: bool = False
    timeout: float = 60.0  # seconds for any one step
    figures: dict[str, Any] = field(default_factory=dict)
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def database(self) -> Path:
        return self.home / "app.db"

    @property
    def restored(self) -> Path:
        return self.home / "restored" / "app.db"

    @property
    def reference(self) -> Path:
        return self.home / "reference" / "app.db"

    @property
    def commits(self) -> Path:
        return self.home / "commits.txt"

    def play(self, seconds: float) -> dict[str, Any]:
        self.prepare()
        writer = self.write(seconds)
        self.make_durable(writer)
        self.lose_everything()
        self.restore()
        self.compare()
        return self.figures

    # ------------------------------------------------------------------- the steps

    def prepare(self) -> None:
        self.title("A database, an S3 server, a sidecar")
        rows = self.app("create", self.database)
        self.report(
            f"a database of {int(rows):,} orders, {output.size(self.database.stat().st_size)}",
            self.database,
        )
        self.report("an S3 server, SeaweedFS", self.endpoint_url)
        self.launch("replicator", "run", str(self.database), log="sidecar.log")
        self.show(
            "replicator", "run", "app.db", "--bucket", _BUCKET, "--endpoint-url", self.endpoint_url
        )
        self.until_following()

    def until_following(self) -> None:
        def following() -> bool:
            with contextlib.suppress(ReplicatorError):
                return self.status().last_snapshot is not None
            return False

        self.until(following, "the sidecar")

    def until(self, condition: Callable[[], bool], who: str) -> None:
        """Wait until a process has started; ``ReplicatorError`` after the timeout."""
        deadline = time.monotonic() + self.timeout
        while not condition():
            if time.monotonic() > deadline:
                raise ReplicatorError(f"{who} did not start", hint=self.log_end())
            time.sleep(0.1)

    def write(self, seconds: float) -> subprocess.Popen[bytes]:
        self.title("An application writes as fast as it can")
        writer = self.launch("app", "write", str(self.database), str(self.commits))
        self.until(self.commits.exists, "the application")  # starting Python counts as no writing
        time.sleep(seconds)
        status = self.status()
        recorded = self.recorded()
        self.figures["commits_per_second"] = round(len(recorded) / seconds)
        self.report(
            f"{len(recorded):,} transactions in {output.duration(seconds)}, one order each",
            f"{self.figures['commits_per_second']:,} a second",
        )
        self.show("replicator", "status", "app.db")
        if not self.quiet:
            status_command.show(dataclasses.replace(status, database=self.database.name))
        return writer

    def make_durable(self, writer: subprocess.Popen[bytes]) -> None:
        self.title("The writer is stopped; every commit so far is flushed")
        writer.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        self.show("replicator", "flush", "app.db")
        position = json.loads(self.cli("flush", str(self.database), "--json"))
        took = time.monotonic() - began
        self.figures |= {"durable_txid": position["txid"], "flush_seconds": round(took, 3)}
        self.report(f"durable up to transaction {position['txid']:,}", output.duration(took))
        self.reference.parent.mkdir()
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{self.database}{suffix}", f"{self.reference}{suffix}")

    def lose_everything(self) -> None:
        self.title("Disaster: SIGKILL for both; database, WAL and cache deleted")
        self.close()
        for path in self.home.glob("*app.db*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        left = [path.name for path in self.home.iterdir() if path.is_file()]
        self.show("ls")
        self.report("  ".join(sorted(left)), "")

    def restore(self) -> None:
        self.title("A new machine: one command")
        self.restored.parent.mkdir()
        self.show("replicator", "restore", "--bucket", _BUCKET, "--endpoint-url", self.endpoint_url)
        report = json.loads(self.cli("restore", "--output", str(self.restored), "--json"))
        self.figures |= {
            "restored_txid": report["txid"],
            "restore_seconds": round(report["seconds"], 3),
            "restored_bytes": report["size"],
            "downloaded_bytes": report["downloaded_bytes"],
        }
        if not self.quiet:
            restore_command.show(
                RestoreReport(**report | {"output": self.restored.name}), dry_run=False
            )

    def compare(self) -> None:
        self.title("Is it the same?")
        self.app("image", self.reference)
        lost, found = self.reference.read_bytes(), self.restored.read_bytes()
        committed = self.recorded()[-1]
        rows = int(self.app("count", self.restored))
        complete = rows in (committed, committed + 1)  # the writer may stop before it records one
        self.figures |= {
            "commits": len(self.recorded()),
            "orders": rows,
            "identical": lost == found and complete,
        }
        self.verdict(
            f"{len(found):,} bytes, identical to the database that SQLite makes of the lost files",
            good=lost == found,
        )
        self.verdict(
            f"{rows:,} orders, including every order whose commit succeeded", good=complete
        )

    # -------------------------------------------------------------- processes

    def environment(self) -> dict[str, str]:
        """The environment of this process, without variables that select another store."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AWS_", "REPLICATOR_"))
        }
        return (
            kept
            | self.credentials
            | {"REPLICATOR_BUCKET": _BUCKET, "REPLICATOR_ENDPOINT_URL": self.endpoint_url}
        )

    def launch(
        self, program: str, *arguments: str, log: str = "app.log"
    ) -> subprocess.Popen[bytes]:
        with (self.home / log).open("ab") as written:
            process = subprocess.Popen(
                [*_program(program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=written,
                env=self.environment(),
                start_new_session=True,
            )
        self._running.append(process)
        return process

    def cli(self, *arguments: str) -> str:
        return self._run(*_program("replicator"), *arguments)

    def app(self, task: str, path: Path) -> str:
        return self._run(*_program("app"), task, str(path))

    def _run(self, *command: str) -> str:
        done = subprocess.run(
            command,
            env=self.environment(),
            cwd=self.home,
            text=True,
            capture_output=True,
            timeout=self.timeout,
            check=False,
        )
        if done.returncode:
            raise ReplicatorError(f"{command[-1]}: {done.stderr.strip()}", hint=self.log_end())
        return done.stdout

    def close(self) -> None:
        """Send SIGKILL to every process of the demo."""
        for process in self._running:
            process.kill()
            process.wait()
        self._running.clear()

    # ------------------------------------------------------------------ facts

    def status(self) -> ReplicationStatus:
        from replicator.cli.sidecar import ask

        return ReplicationStatus(**ask(self.database, None, {"command": "status"}))

    def recorded(self) -> list[int]:
        """The orders that the application recorded as committed."""
        return [int(line) for line in self.commits.read_bytes().split(b"\n")[:-1]]

    def log_end(self) -> str:
        log = self.home / "sidecar.log"
        return " / ".join(log.read_text(errors="replace").splitlines()[-3:])

    # -------------------------------------------------------------- narration

    def title(self, text: str) -> None:
        self._say("")
        self._say(f"[bold]{text}[/]")

    def show(self, *command: str) -> None:
        self._say(f"  [dim]$[/] [cyan]{' '.join(command)}[/]")

    def report(self, text: str, detail: object) -> None:
        self._say(f"  {text}  [dim]{detail}[/]")

    def verdict(self, text: str, *, good: bool) -> None:
        self._say(f"  {'[bold green]✓[/]' if good else '[bold red]✗ NOT'} {text}")

    def _say(self, text: str) -> None:
        if not self.quiet:
            output.say(text)


def _program(name: str) -> list[str]:
    module = "replicator.cli.demo_app" if name == "app" else name
    return [sys.executable, "-m", module]
