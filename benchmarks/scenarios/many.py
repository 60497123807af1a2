"""Many databases of 1 MB: what they cost together, idle; how soon a commit on one of them is in
the bucket; and what one commit in each costs.

Both systems follow all of them in one process, with one file that names them.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from benchmarks import database, measure
from benchmarks.scenarios.base import BOTH, Case, Effort, Figures, Trial
from benchmarks.scenarios.lone import EARLY, lags_of

LONE = 5  # commits on one of them


def cases(effort: Effort) -> list[Case]:
    return [
        Case(
            f"many-{count}",
            f"{count} databases of 1 MB, {effort.many_seconds:g} s idle, then one commit in each",
            BOTH,
            lambda trial, count=count: run(trial, count),
        )
        for count in effort.many
    ]


def run(trial: Trial, count: int) -> Figures:
    paths = [trial.database(1, f"{n}.db", seed=n) for n in range(count)]
    began = time.monotonic()
    trial.follow(*paths)
    started = {"start wall s": time.monotonic() - began, "start cpu s": trial.system.cpu()}
    with trial.window() as idle:
        time.sleep(trial.effort.many_seconds)
    idle["cpu %"] = 100 * idle["cpu s"] / idle["wall s"]
    pss = trial.system.pss()
    mark = trial.place.mark()
    said = trial.write(paths[0], "lone", count=LONE, gap=1.5)
    trial.system.flush(paths[0])
    lags = lags_of(said["commits"], trial, mark, EARLY)
    with trial.window() as written:
        for path in paths:
            commit(path)
        trial.system.settle()
    trial.prove(paths[-1])
    return (
        started
        | {"pss": pss}
        | measure.latencies(lags, "lag")
        | {f"idle: {name}": value for name, value in idle.items()}
        | {f"commits: {name}": value for name, value in written.items()}
    )


def commit(path: Path) -> None:
    with contextlib.closing(database.connect(path)) as connection:
        connection.execute("INSERT INTO event(note) VALUES (?)", (database.NOTE,))
