"""Lone commits, far apart: from COMMIT's return to the store's answer, seen by the proxy."""

from __future__ import annotations

from benchmarks import measure
from benchmarks.measure import Failed
from benchmarks.place import Request
from benchmarks.scenarios.base import BOTH, Case, Effort, Figures, Trial

EARLY = 0.05  # seconds; a replicator may see the commit before the application hears of it


def cases(effort: Effort) -> list[Case]:
    return [Case("lone", f"{effort.lone} single commits, 1.5 to 3 s apart", BOTH, run)]


def run(trial: Trial) -> Figures:
    path = trial.database(trial.effort.oltp_db)
    trial.follow(path)
    mark = trial.place.mark()
    with trial.window() as figures:
        said = trial.write(path, "lone", count=trial.effort.lone, gap=1.5)
        trial.system.settle()
    arrivals = [request for request in trial.requests(mark)
                if request.kind == "PUT" and request.status == 200
                and trial.system.is_commit_object(request.target)]
    lags = [lag(moment, arrivals) for moment in said["commits"]]
    trial.prove(path)
    return figures | measure.latencies(lags, "lag") | {
        f"lag {n:03d} ms": value * 1000 for n, value in enumerate(sorted(lags))}


def lag(moment: float, arrivals: list[Request]) -> float:
    """Seconds until the first object that was sent after the commit is acknowledged."""
    after = [one.answered for one in arrivals if one.begun >= moment - EARLY]
    if not after:
        raise Failed("a commit never arrived")
    return max(0.0, min(after) - moment)
