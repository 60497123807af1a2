"""The cost of growth, one point of a curve each: over the size of the database and over the rate of
commits. The curves over the log's length and over the number of databases are made of the cases
of ``restore`` and ``many``.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from benchmarks import database, measure
from benchmarks.place import traffic
from benchmarks.scenarios import lone
from benchmarks.scenarios.base import BOTH, Case, Effort, Figures, Trial

LONE = 5  # commits far apart
# Seconds; as ``lone.EARLY``, but where upload follows upload, that of the commit before may
# begin just before this commit. What is seen sooner than that counts for the next upload.
EARLY = 0.005


def cases(effort: Effort) -> list[Case]:
    rates: list[float | None] = [*effort.rates, *([None] if effort.rates else [])]
    return [
        *(
            Case(
                f"size-{size:.0f}",
                f"{size:.0f} MB: first snapshot, {LONE} lone commits, restore",
                BOTH,
                lambda trial, size=size: by_size(trial, size),
                30 + size / 8,
                curve=True,
            )
            for size in effort.sizes
        ),
        *(
            Case(
                f"rate-{rate or 'saturated'}",
                f"{rate or 'as many as one writer can'} commits/s for {effort.rate_seconds:g} s",
                BOTH,
                lambda trial, rate=rate: by_rate(trial, rate),
                30,
                curve=True,
            )
            for rate in rates
        ),
    ]


def by_size(trial: Trial, megabytes: float) -> Figures:
    path = trial.database(megabytes)
    mark, began = trial.place.mark(), time.monotonic()
    trial.system.start([path])
    trial.system.wait_ready()
    trial.system.settle()
    figures = {
        "snapshot: wall s": time.monotonic() - began,
        "snapshot: cpu s": trial.system.cpu(),
        "snapshot: peak rss": trial.system.rss(),
        "snapshot: bytes up": traffic(trial.requests(mark))["bytes up"],
    }
    with trial.window() as commits:
        lags = lags_of(trial, path, "lone", lone.EARLY, count=LONE, gap=1.5)
    figures |= {
        "commits: lag p50 ms": statistics.median(lags) * 1000,
        "commits: cpu s": commits["cpu s"],
        "commits: rss": trial.system.rss("VmRSS"),
    }
    trial.system.stop()
    restored = trial.proved_restore(path, database.digest(path))
    return figures | {
        "restore: wall s": restored.seconds,
        "restore: cpu s": restored.cpu,
        "restore: peak rss": restored.peak_rss,
        "restore: MB/s": path.stat().st_size / 1e6 / restored.seconds,
    }


def by_rate(trial: Trial, rate: float | None) -> Figures:
    """``rate`` None: as fast as it goes."""
    path = trial.database(trial.effort.oltp_db)
    trial.follow(path)
    load = "saturated" if rate is None else "steady"
    early = 0.0 if rate is None else min(EARLY, 0.5 / rate)
    options = {"seconds": trial.effort.rate_seconds} | ({} if rate is None else {"rate": rate})
    with trial.window() as figures:
        lags = lags_of(trial, path, load, early, **options)
    seconds, commits = figures["wall s"], len(lags)
    figures |= {
        "transactions/s": commits / trial.effort.rate_seconds,
        "cpu %": 100 * figures["cpu s"] / seconds,
        "requests a second": figures["requests"] / seconds,
        "bytes up per commit": figures["bytes up"] / commits,
    }
    figures |= measure.latencies(lags, "lag")
    trial.prove(path)
    return figures


def lags_of(trial: Trial, path: Path, load: str, early: float, **options: float) -> list[float]:
    """Run the application; for each commit, seconds until it is in the bucket."""
    mark = trial.place.mark()
    said = trial.write(path, load, **options)
    trial.system.settle()
    return lone.lags_of(said["commits"], trial, mark, early)
