"""The plots: ratios at one glance, the lags of lone commits, and what grows with what."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from benchmarks import plot
from benchmarks.outcome import OURS, THEIRS, Outcome

BARS = (
    "wall s",
    "cpu s",
    "peak rss",
    "requests",
    "bytes up",
    "stored bytes",
    "lag p50 ms",
    "pss",
    "start cpu s",
    "idle: cpu s",
)


@dataclass(frozen=True)
class Curve:
    """``name`` of the figure over the number between ``before`` and ``after`` in the cases'
    names, divided by ``unit``."""

    file: str
    title: str
    name: str
    before: str
    after: str = ""
    unit: float = 1


CURVES = (
    Curve("size-snapshot", "first snapshot (s) by size (MB)", "snapshot: wall s", "size-"),
    Curve("size-snapshot-cpu", "first snapshot, CPU (s) by size (MB)", "snapshot: cpu s", "size-"),
    Curve("size-lag", "lag of a lone commit (ms) by size (MB)", "commits: lag p50 ms", "size-"),
    Curve(
        "size-memory",
        "resident while following (MB) by size (MB)",
        "commits: rss",
        "size-",
        unit=1e6,
    ),
    Curve("size-restore", "restore (s) by size (MB)", "restore: wall s", "size-"),
    Curve("size-restore-cpu", "restore, CPU (s) by size (MB)", "restore: cpu s", "size-"),
    Curve(
        "size-restore-memory",
        "peak memory of a restore (MB) by size (MB)",
        "restore: peak rss",
        "size-",
        unit=1e6,
    ),
    Curve("rate-lag", "lag p50 (ms) by commits/s", "lag p50 ms", "rate-"),
    Curve("rate-cpu", "CPU (% of a core) by commits/s", "cpu %", "rate-"),
    Curve("rate-memory", "peak memory (MB) by commits/s", "peak rss", "rate-", unit=1e6),
    Curve("rate-bytes", "bytes up for each commit by commits/s", "bytes up per commit", "rate-"),
    Curve("length-restore", "restore (s) by number of segments", "wall s", "restore-", "-segments"),
    Curve(
        "length-restore-cpu",
        "restore, CPU (s) by number of segments",
        "cpu s",
        "restore-",
        "-segments",
    ),
    Curve("many", "memory (MB, PSS) by number of databases", "pss", "many-", unit=1e6),
    Curve(
        "many-cpu", "CPU while idle (% of a core) by number of databases", "idle: cpu %", "many-"
    ),
)


def plots(outcomes: list[Outcome]) -> dict[str, str]:
    """Name of the file → SVG."""
    found = {
        "ratios.svg": plot.bars(
            "replicator ÷ litestream; left of the line is less",
            [
                (f"{outcome.name}: {name}", ratio)
                for outcome in outcomes
                for name in BARS
                if (ratio := outcome.ratio(name))
            ],
        )
    }
    if lags := lone_lags(outcomes):
        found["lone.svg"] = plot.curves("lone commits: share in the bucket after … ms", lags)
    for curve in CURVES:
        if series := points(outcomes, curve):
            found[f"{curve.file}.svg"] = plot.curves(curve.title, series, log_y=True)
    return found


def lone_lags(outcomes: list[Outcome]) -> dict[str, plot.Points]:
    return {
        system: [(ms, (n + 1) / len(values)) for n, ms in enumerate(values)]
        for outcome in outcomes
        if outcome.name == "lone"
        for system, trials in outcome.trials.items()
        if (
            values := sorted(
                ms for trial in trials for name, ms in trial.items() if name.startswith("lag 0")
            )
        )
    }


def points(outcomes: list[Outcome], curve: Curve) -> dict[str, plot.Points]:
    """For each system, the figure over the number in the case's name; what was saturated
    lies at the rate it came to. Nothing where there is one point only."""
    found: dict[str, plot.Points] = {}
    for outcome in outcomes:
        for system in (OURS, THEIRS):
            at = position(outcome, curve, system)
            middle = outcome.median(system, curve.name)
            if at is not None and middle is not None:
                found.setdefault(system, []).append((at, middle / curve.unit))
    return {system: sorted(line) for system, line in found.items() if len(line) > 1}


def position(outcome: Outcome, curve: Curve, system: str) -> float | None:
    name = outcome.name
    if not (name.startswith(curve.before) and name.endswith(curve.after)):
        return None
    middle = name.removeprefix(curve.before).removesuffix(curve.after)
    if middle == "saturated":
        return outcome.median(system, "transactions/s")
    with contextlib.suppress(ValueError):
        return float(middle)
    return None
