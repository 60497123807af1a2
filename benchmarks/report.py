"""Writes what was measured: a Markdown table for people, JSON for programs, plots.

A ratio is ours divided by Litestream's, of the medians. Nothing is left out: what failed is named.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks import plot

OURS, THEIRS = "replicator", "litestream"
BRIEF = ("wall s", "cpu s", "peak rss", "requests", "bytes up", "latency p99 ms", "lag p50 ms",
         "MB/s", "transactions/s", "cpu %", "pss")
UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B"))
BYTES = ("bytes", "rss", "pss", "log left")


@dataclass
class Outcome:
    """All trials of one case: for each system, a list of figures."""

    name: str
    what: str
    trials: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, system: str, figures: dict[str, float]) -> None:
        self.trials.setdefault(system, []).append(figures)

    def names(self) -> list[str]:
        """Every figure, in the order in which it was first met."""
        all_of_them = [name for trials in self.trials.values() for trial in trials
                       for name in trial]
        return list(dict.fromkeys(all_of_them))

    def median(self, system: str, name: str) -> float | None:
        """A kind of request that was never made counts as none."""
        trials = self.trials.get(system, [])
        counted = any("requests" in trial for trial in trials)
        values = [trial.get(name, 0.0) if "requests" in name and counted else trial[name]
                  for trial in trials if name in trial or ("requests" in name and counted)]
        return statistics.median(values) if values else None

    def ratio(self, name: str) -> float | None:
        ours, theirs = self.median(OURS, name), self.median(THEIRS, name)
        return ours / theirs if ours is not None and theirs else None


def value(name: str, number: float) -> str:
    """A figure with its unit where the name has none."""
    if any(name.endswith(word) or f"{word} " in name for word in BYTES):
        unit, name = next(((size, name) for size, name in UNITS if number >= size), UNITS[-1])
        return f"{number / unit:.2f} {name}" if unit > 1 else f"{number:.0f} {name}"
    if number >= 100 or number == int(number):
        return f"{number:,.0f}"
    return f"{number:.2f}" if number >= 1 else f"{number:.3f}"


def shown(name: str, number: float) -> str:
    return f"{name} {value(name, number)}"


def write(directory: Path, about: dict[str, str], outcomes: list[Outcome]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    document = {"machine": about, "outcomes": [asdict(outcome) for outcome in outcomes]}
    (directory / "results.json").write_text(json.dumps(document, indent=1) + "\n")
    (directory / "results.md").write_text(markdown(about, outcomes))
    for name, drawing in plots(outcomes).items():
        (directory / name).write_text(drawing)


def markdown(about: dict[str, str], outcomes: list[Outcome]) -> str:
    lines = ["# Measured", ""]
    lines += [f"- {name}: {what}" for name, what in about.items()]
    lines += ["", "Medians of all runs; the ratio is replicator divided by litestream. Each "
              "restored database was compared with its source, row by row; a trial that failed "
              "that does not count and is named.", ""]
    for outcome in outcomes:
        lines += table(outcome)
    return "\n".join(lines)


def table(outcome: Outcome) -> list[str]:
    systems = list(outcome.trials)
    runs = max((len(trials) for trials in outcome.trials.values()), default=0)
    compared = OURS in systems and THEIRS in systems
    heads = ["", *systems, *(["ratio"] if compared else [])]
    lines = [f"## {outcome.name}", "", f"{outcome.what}; {runs} run{'s' * (runs != 1)}.", ""]
    lines += [f"**failed:** {failure}\n" for failure in outcome.failures]
    lines += [f"| {' | '.join(heads)} |", f"|---{'|---:' * (len(heads) - 1)}|"]
    for name in outcome.names():
        if name.startswith("lag 0"):
            continue  # the single lags are for the plot
        cells = [cell(name, outcome.median(system, name)) for system in systems]
        if compared:
            ratio = outcome.ratio(name)
            cells.append("" if ratio is None else f"{ratio:.2f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]


def cell(name: str, number: float | None) -> str:
    return "" if number is None else value(name, number)


def plots(outcomes: list[Outcome]) -> dict[str, str]:
    """Name of the file → SVG."""
    found = {"ratios.svg": plot.bars("replicator ÷ litestream; left of the line is less", [
        (f"{outcome.name}: {name}", ratio) for outcome in outcomes
        for name in ("wall s", "cpu s", "peak rss", "requests", "bytes up", "stored bytes",
                     "lag p50 ms", "pss", "start cpu s", "idle: cpu s")
        if (ratio := outcome.ratio(name))])}
    lags = {system: [(ms, (n + 1) / len(values)) for n, ms in enumerate(values)]
            for outcome in outcomes if outcome.name == "lone"
            for system, trials in outcome.trials.items()
            if (values := sorted(ms for trial in trials for name, ms in trial.items()
                                 if name.startswith("lag 0")))}
    if lags:
        found["lone.svg"] = plot.curves("lone commits: share in the bucket after … ms", lags)
    growth = curve_of(outcomes, "many-", "pss", 1e6)
    if growth:
        found["many.svg"] = plot.curves("memory (MB, PSS) by number of databases", growth)
    return found


def curve_of(outcomes: list[Outcome], prefix: str, name: str,
             unit: float) -> dict[str, list[tuple[float, float]]]:
    """For each system, the figure over the number at the end of the case's name."""
    found: dict[str, list[tuple[float, float]]] = {}
    for outcome in outcomes:
        if outcome.name.startswith(prefix):
            size = float(outcome.name.removeprefix(prefix))
            for system in (OURS, THEIRS):
                middle = outcome.median(system, name)
                if middle is not None:
                    found.setdefault(system, []).append((size, middle / unit))
    return found
