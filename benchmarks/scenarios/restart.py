"""Restart after a downtime in which 1 % of the pages changed and the log was checkpointed."""

from __future__ import annotations

import time

from benchmarks import database
from benchmarks.place import traffic
from benchmarks.scenarios.base import BOTH, Case, Effort, Figures, Trial


def cases(effort: Effort) -> list[Case]:
    return [
        Case(
            "restart",
            f"{effort.restart_db} MB database, 1 % of its pages changed while nobody followed",
            BOTH,
            run,
        )
    ]


def run(trial: Trial) -> Figures:
    path = trial.database(trial.effort.restart_db)
    trial.follow(path)
    trial.system.stop()
    database.change(path, 0.01)
    mark, began = trial.place.mark(), time.monotonic()
    trial.system.start([path])
    trial.system.wait_ready()
    trial.system.settle()
    figures = {
        "wall s": time.monotonic() - began,
        "cpu s": trial.system.cpu(),
        "peak rss": trial.system.rss(),
    } | traffic(trial.requests(mark))
    figures["uploaded % of database"] = 100 * figures["bytes up"] / path.stat().st_size
    trial.prove(path)
    return figures
