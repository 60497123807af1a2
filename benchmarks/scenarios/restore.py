"""Restore: the snapshot alone, with few and with thousands of segments behind it, and in the past.

The segments are made at 40 commits a second with a sync interval of 10 ms. Litestream compacts
them every 30 s meanwhile, as it does by default; ours are not merged yet (5 minutes), which is
our worst case.
"""

from __future__ import annotations

import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import database
from benchmarks.place import traffic
from benchmarks.scenarios.base import BOTH, Case, Effort, Figures, Trial
from benchmarks.scenarios.limits import beside
from benchmarks.systems.copies import Backup, Compressed, Copy

RATE = 40
APART = 1.5  # seconds around the point in time: more than a sync interval


def cases(effort: Effort) -> list[Case]:
    small, big = effort.restore_db, effort.restore_big
    return [
        Case(
            f"restore-{big}",
            f"restore of {big} MB from the snapshot",
            (*BOTH, Backup, Compressed),
            lambda trial: segments(trial, big, 0),
            big / 7,
        ),
        *(
            Case(
                f"restore-{n}-segments",
                f"{small} MB and up to {n} segments of one commit",
                BOTH,
                lambda trial, n=n: segments(trial, small, n),
                20 + n / RATE,
                curve=True,
            )
            for n in sorted({*effort.segments, *effort.lengths})
        ),
        Case("restore-past", f"{small} MB, as it was before the last 200 commits", BOTH, past),
    ]


def segments(trial: Trial, megabytes: float, count: int) -> Figures:
    path = trial.database(megabytes)
    if isinstance(trial.system, Copy):
        trial.system.copy(path)
    else:
        trial.system.sync_interval = "10ms"
        trial.follow(path)
    if count:
        trial.write(path, "steady", rate=RATE, seconds=count / RATE)
        trial.system.settle()
    figures = trial.stored()
    trial.system.stop()
    figures |= timed(trial, path, database.digest(path))
    return figures | (beside(trial, path) if isinstance(trial.system, Compressed) else {})


def past(trial: Trial) -> Figures:
    path = trial.database(trial.effort.restore_db)
    trial.follow(path)
    trial.write(path, "count", count=200)
    trial.system.settle()
    time.sleep(APART)
    moment, expected = datetime.now(UTC).isoformat(), database.digest(path)
    time.sleep(APART)
    trial.write(path, "count", count=200, seed=9)
    trial.system.settle()
    trial.system.stop()
    return timed(trial, path, expected, moment)


def timed(trial: Trial, path: Path, expected: str, at: str | None = None) -> Figures:
    """The median of some restores, each compared with what it has to be."""
    mark = trial.place.mark()
    ran = [trial.proved_restore(path, expected, at) for _ in range(trial.effort.restores)]
    asked = {name: value / len(ran) for name, value in traffic(trial.requests(mark)).items()}
    seconds = statistics.median(one.seconds for one in ran)
    return {
        "wall s": seconds,
        "cpu s": statistics.median(one.cpu for one in ran),
        "MB/s": path.stat().st_size / 1e6 / seconds,
        "peak rss": max(one.peak_rss for one in ran),
    } | asked
