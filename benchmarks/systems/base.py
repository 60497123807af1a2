"""What a scenario asks of a system, so that each scenario is written once for all of them."""

from __future__ import annotations

import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks import measure
from benchmarks.measure import Failed, Ran
from benchmarks.place import Place

PATIENCE = 900.0  # seconds after which a system is stuck; no figure comes of it


class System(ABC):
    """One system at work on some databases, storing below ``prefix`` of the place's bucket."""

    name: str

    def __init__(self, place: Place, directory: Path, prefix: str) -> None:
        self.place, self.directory, self.prefix = place, directory, prefix
        self.databases: list[Path] = []
        self.sync_interval = ""  # such as 10ms; the system's own default where empty
        self._processes: list[subprocess.Popen[bytes]] = []

    # ---------------------------------------------------------------- what differs

    @abstractmethod
    def commands(self) -> list[list[str]]:
        """The processes that follow ``databases``."""

    @abstractmethod
    def ready(self, database: Path) -> bool:
        """Whether the first snapshot of the database is in the bucket."""

    @abstractmethod
    def flush(self, database: Path) -> None:
        """Return once all that is committed is in the bucket."""

    @abstractmethod
    def restore_command(self, database: Path, output: Path, at: str | None) -> list[str]:
        """Rebuild the database, as it was at ``at`` (RFC 3339) or newest."""

    def warm(self, *, long: bool = False) -> None:  # noqa: B027 - most have no after-effects
        """Return once what a first start causes in its first half minute (``long``: in its first
        five minutes) is over, so that it burdens no window."""

    def own_figures(self) -> dict[str, float]:
        """What the system says of itself and nobody can see from outside."""
        return {}

    def is_commit_object(self, target: str) -> bool:
        """Whether a request's target is the object that makes a commit restorable."""
        return True

    # ---------------------------------------------------------------- what is common

    def environment(self) -> Mapping[str, str]:
        return self.place.environment()

    def start(self, databases: Sequence[Path]) -> None:
        """Start to follow; returns at once."""
        self.databases = list(databases)
        with (self.directory / f"{self.name}.log").open("ab") as log:
            self._processes = [
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=dict(self.environment()),
                    cwd=self.directory,
                )
                for command in self.commands()
            ]

    def wait_ready(self) -> None:
        """Return once the first snapshot of every database is in the bucket."""
        for database in self.databases:
            self._wait(lambda database=database: self.ready(database))

    def _wait(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > until or any(p.poll() is not None for p in self._processes):
                raise Failed(f"{self.name}: stuck, or ended: {self.last_words()}")
            time.sleep(0.05)

    def settle(self) -> None:
        """Return once all that is committed, in every database, is in the bucket."""
        for database in self.databases:
            self.flush(database)

    def stop(self) -> None:
        """SIGTERM, and the end; ``Failed`` when the exit code is not 0."""
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        codes = [process.wait(PATIENCE) for process in self._processes]
        self._processes = []
        if any(codes):
            raise Failed(f"{self.name} ended with {codes}: {self.last_words()}")

    def kill(self) -> None:
        """End whatever still runs; for the way out of a failure."""
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes = []

    def restore(self, database: Path, output: Path, at: str | None = None) -> Ran:
        return measure.run(
            self.restore_command(database, output, at), self.environment(), self.directory
        )

    def cpu(self) -> float:
        """Seconds so far, of all processes."""
        return sum(measure.cpu_seconds(process.pid) for process in self._processes)

    def rss(self, field: str = "VmHWM") -> int:
        """Bytes: VmHWM (the peak since :meth:`reset_peak`) or VmRSS, summed up."""
        return sum(measure.memory(process.pid, field) for process in self._processes)

    def pss(self) -> int:
        return sum(measure.memory(p.pid, "Pss", "smaps_rollup") for p in self._processes)

    def reset_peak(self) -> None:
        for process in self._processes:
            measure.reset_peak(process.pid)

    def last_words(self) -> str:
        log = self.directory / f"{self.name}.log"
        return " / ".join(log.read_text(errors="replace").splitlines()[-3:])
