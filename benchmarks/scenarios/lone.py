"""Lone commits, far apart: from COMMIT's return to the store's answer, seen by the proxy."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate, pairwise

from benchmarks import measure
from benchmarks.measure import Failed
from benchmarks.scenarios.base import BOTH, Case, Effort, Figures, Trial

GAP = 12.0  # seconds: the budget of uploads is full again
EARLY = 0.05  # seconds; a replicator may see the commit before the application hears of it


def cases(effort: Effort) -> list[Case]:
    seconds = effort.pace_seconds
    return [
        Case("lone", f"{effort.lone} single commits, 1.5 to 3 s apart", BOTH, lone),
        *(
            Case(
                f"pace-{rate:g}",
                f"{rate:g} commits a second for {seconds:g} s",
                BOTH,
                lambda trial, rate=rate: run(trial, "steady", rate=rate, seconds=seconds),
            )
            for rate in effort.paces
        ),
        Case(
            "pace-bursts",
            f"{effort.bursts} bursts of ten commits, {GAP} s apart",
            BOTH,
            lambda trial: run(trial, "bursts", count=effort.bursts, gap=GAP),
        ),
    ]


def lone(trial: Trial) -> Figures:
    return run(trial, "lone", count=trial.effort.lone, gap=1.5)


def run(trial: Trial, load: str, **options: float) -> Figures:
    path = trial.database(trial.effort.oltp_db)
    trial.follow(path)
    mark = trial.place.mark()
    with trial.window() as figures:
        said = trial.write(path, load, **options)
        trial.system.settle()
    commits = said["commits"]
    early = min(EARLY, *(b - a for a, b in pairwise(commits)), EARLY) / 2
    lags = lags_of(commits, trial, mark, early)
    trial.prove(path)
    return (
        figures
        | measure.latencies(lags, "lag")
        | {f"lag {n:03d} ms": value * 1000 for n, value in enumerate(sorted(lags))}
    )


def lags_of(commits: list[float], trial: Trial, mark: int, early: float) -> list[float]:
    """For each commit, seconds until the first object that was sent after it is acknowledged."""
    arrivals = sorted(
        (one.begun, one.answered)
        for one in trial.requests(mark)
        if one.kind == "PUT" and one.status == 200 and trial.system.is_commit_object(one.target)
    )
    begun = [begin for begin, _ in arrivals]
    earliest = list(accumulate((end for _, end in reversed(arrivals)), min))[::-1]
    found = [bisect_left(begun, moment - early) for moment in commits]
    if any(at == len(arrivals) for at in found):
        raise Failed("a commit never arrived")
    return [max(0.0, earliest[at] - moment) for at, moment in zip(found, commits, strict=True)]
