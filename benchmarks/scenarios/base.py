"""What the scenarios share: how hard to try, one trial, and a window in which things count."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import database, measure
from benchmarks.measure import Failed, Ran
from benchmarks.place import ROOT, Place, Request, traffic
from benchmarks.systems.alone import Alone
from benchmarks.systems.base import System
from benchmarks.systems.litestream import Litestream
from benchmarks.systems.ours import Replicator

BOTH = (Replicator, Litestream)
WITH_ALONE = (Replicator, Litestream, Alone)
Figures = dict[str, float]


@dataclass(frozen=True)
class Effort:
    """Sizes are MB, times seconds. ``warm`` waits until a first start's after-effects are over
    (up to 30 s with Litestream), so that they fall into no window."""

    oltp_db: int = 22
    oltp_seconds: float = 40  # one compaction of Litestream, of 30 s, falls into each window
    saturated_seconds: float = 15
    blobs: int = 256
    lone: int = 30
    paces: tuple[float, ...] = (0.5, 1, 2, 5)  # commits a second, of people
    pace_seconds: float = 20
    bursts: int = 2
    idle_seconds: float = 60
    snapshots: tuple[int, ...] = (100, 1000)
    linger: float = 35  # after the start: Litestream's first compaction is over
    restore_db: int = 100
    restore_big: int = 600
    segments: tuple[int, ...] = (1, 100, 3000)
    restores: int = 3
    restart_db: int = 1000
    many: tuple[int, ...] = (1, 10, 100, 500)
    many_seconds: float = 30
    limits: int = 256
    sizes: tuple[float, ...] = (10, 100, 1000)
    rates: tuple[int, ...] = (1, 10, 100, 1000)
    rate_seconds: float = 10
    lengths: tuple[int, ...] = (10, 1000)  # with ``segments`` the curve over the log's length
    warm: bool = True


QUICK = Effort(
    oltp_db=4,
    oltp_seconds=3,
    saturated_seconds=2,
    blobs=16,
    lone=3,
    paces=(2,),
    pace_seconds=3,
    bursts=1,
    idle_seconds=3,
    snapshots=(20,),
    linger=0,
    restore_db=8,
    restore_big=20,
    segments=(50,),
    restores=1,
    restart_db=20,
    many=(1, 4),
    many_seconds=4,
    limits=16,
    sizes=(1, 10),
    rates=(10, 100),
    rate_seconds=3,
    lengths=(),
    warm=False,
)


@dataclass(frozen=True)
class Case:
    """A scenario in one size. ``run`` returns the figures of one trial; ``seconds`` is about
    what that takes on two cores. ``curve``: it is a point of a curve, where one run will do."""

    name: str
    what: str
    systems: tuple[type[System], ...]
    run: Callable[[Trial], Figures]
    seconds: float = 60
    curve: bool = False


@dataclass
class Trial:
    """One system in one scenario, once."""

    system: System
    place: Place
    directory: Path
    effort: Effort

    def database(
        self, megabytes: float, name: str = "app.db", seed: int = 1, *, real: bool = False
    ) -> Path:
        """Made once for all trials of the same size, so that they have the same rows."""
        size = int(megabytes * 1e6)
        model = self.directory.parent / f"model-{size}-{seed}{'-real' * real}.db"
        if not model.exists():
            database.make(model.with_suffix(".new"), size, seed, real=real).rename(model)
        return Path(shutil.copyfile(model, self.directory / name))

    def follow(self, *databases: Path) -> None:
        """The system follows, and everything so far is in the bucket."""
        self.system.start(databases)
        self.system.wait_ready()
        self.system.settle()
        if self.effort.warm:
            self.system.warm()

    def write(self, path: Path, load: str, **options: float) -> dict:
        """Run the application to its end; what it says."""
        words = [f"--{name}={value}" for name, value in options.items()]
        ran = measure.run(
            [sys.executable, "-m", "benchmarks.writer", path, load, *words],
            {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
            self.directory,
        )
        return json.loads(ran.out)

    @contextlib.contextmanager
    def window(self) -> Iterator[Figures]:
        """Everything in between counts; the figures are there when it closes."""
        figures: Figures = {}
        self.system.reset_peak()
        mark, cpu, began = self.place.mark(), self.system.cpu(), time.monotonic()
        yield figures
        figures |= {
            "wall s": time.monotonic() - began,
            "cpu s": self.system.cpu() - cpu,
            "peak rss": self.system.rss(),
        }
        figures |= traffic(self.requests(mark))

    def requests(self, mark: int) -> list[Request]:
        return self.place.since(mark)

    def stored(self) -> Figures:
        objects, size = self.place.stored(self.system.prefix)
        return {"stored objects": objects, "stored bytes": size}

    def prove(self, path: Path) -> Ran:
        """Stop the system, restore, and compare with the source: else nothing counts."""
        self.system.stop()
        return self.proved_restore(path, database.digest(path))

    def proved_restore(self, path: Path, expected: str, at: str | None = None) -> Ran:
        output = self.directory / "restored.db"
        ran = self.system.restore(path, output, at)
        found = database.digest(output)
        for name in (output, *output.parent.glob(f"{output.name}-*")):
            name.unlink(missing_ok=True)
        if found != expected:
            raise Failed(f"{self.system.name}: the restored database is not the source")
        return ran


def written(
    trial: Trial, megabytes: float, load: str, *, real: bool = False, **options: float
) -> Figures:
    """Follow a database, write, and count until all of it is in the bucket and proved."""
    path = trial.database(megabytes, real=real)
    trial.follow(path)
    with trial.window() as figures:
        said = trial.write(path, load, **options)
        log = path.with_name(f"{path.name}-wal").stat().st_size if _has_log(path) else 0
        trial.system.settle()
    figures |= {"transactions/s": len(said["latency"]) / said["seconds"], "log left": log}
    figures |= measure.latencies(said["latency"])
    if isinstance(trial.system, Alone):
        return {
            name: value
            for name, value in figures.items()
            if name.startswith(("latency", "transactions", "log"))
        }
    figures |= trial.system.own_figures() | trial.stored()
    trial.prove(path)
    return figures


def _has_log(path: Path) -> bool:
    return path.with_name(f"{path.name}-wal").exists()
