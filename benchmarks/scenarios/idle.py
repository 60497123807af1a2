"""Idle: everything is in the bucket, nobody writes."""

from __future__ import annotations

import time

from benchmarks.scenarios.base import BOTH, Case, Effort, Figures, Trial


def cases(effort: Effort) -> list[Case]:
    return [
        Case(
            "idle",
            f"{effort.oltp_db} MB database, {effort.idle_seconds:g} s without a write",
            BOTH,
            run,
        )
    ]


def run(trial: Trial) -> Figures:
    path = trial.database(trial.effort.oltp_db)
    trial.follow(path)
    if trial.effort.warm:
        trial.system.warm(long=True)
    with trial.window() as figures:
        time.sleep(trial.effort.idle_seconds)
    figures |= {
        "cpu %": 100 * figures["cpu s"] / figures["wall s"],
        "requests an hour": 3600 * figures["requests"] / figures["wall s"],
        "rss": trial.system.rss("VmRSS"),
    }
    trial.prove(path)
    return figures
