"""The first snapshot: from the start of the process until the database can be restored.

``later``: what the whole first half minute costs; Litestream uploads the same pages again when it
compacts for the first time. The copies are those people make without a replicator.
"""

from __future__ import annotations

import time

from benchmarks import database
from benchmarks.place import traffic
from benchmarks.scenarios.base import BOTH, Case, Effort, Figures, Trial
from benchmarks.scenarios.limits import beside
from benchmarks.systems.copies import Backup, Compressed, Copy, Vacuum


def cases(effort: Effort) -> list[Case]:
    """Of half-random rows, and of rows as people write them, which compress twice as well."""
    return [
        *(
            Case(
                f"snapshot-{size}",
                f"first snapshot of a {size} MB database",
                (*BOTH, Backup, Vacuum, Compressed),
                lambda trial, size=size: run(trial, size),
                30 + size / 10,
            )
            for size in effort.snapshots
        ),
        *(
            Case(
                f"snapshot-{size}-real",
                f"first snapshot of {size} MB of orders",
                (*BOTH, Compressed),
                lambda trial, size=size: run(trial, size, real=True),
                30 + size / 10,
            )
            for size in effort.snapshots
        ),
    ]


def run(trial: Trial, megabytes: float, *, real: bool = False) -> Figures:
    path = trial.database(megabytes, real=real)
    if isinstance(trial.system, Copy):
        return copied(trial, trial.system)
    mark, began = trial.place.mark(), time.monotonic()
    trial.system.start([path])
    trial.system.wait_ready()
    trial.system.settle()
    figures: Figures = {
        "database bytes": path.stat().st_size,
        "wall s": time.monotonic() - began,
        "cpu s": trial.system.cpu(),
        "peak rss": trial.system.rss(),
    }
    figures |= traffic(trial.requests(mark))
    if trial.effort.linger:
        time.sleep(max(0.0, began + trial.effort.linger - time.monotonic()))
        trial.system.warm()
        trial.system.settle()
        figures |= {
            "later: cpu s": trial.system.cpu(),
            "later: bytes up": traffic(trial.requests(mark))["bytes up"],
            "later: bytes down": traffic(trial.requests(mark))["bytes down"],
        }
    figures |= trial.stored()
    trial.prove(path)
    return figures


def copied(trial: Trial, system: Copy) -> Figures:
    path = trial.directory / "app.db"
    mark = trial.place.mark()
    ran = system.copy(path)
    figures = {
        "database bytes": path.stat().st_size,
        "wall s": ran.seconds,
        "cpu s": ran.cpu,
        "peak rss": ran.peak_rss,
    }
    figures |= traffic(trial.requests(mark)) | trial.stored()
    trial.proved_restore(path, database.digest(path))
    return figures | (beside(trial, path) if isinstance(system, Compressed) else {})
