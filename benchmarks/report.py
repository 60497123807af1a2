"""Writes what was measured: a Markdown table for people, JSON for programs, plots.

Ratios are ours divided by the other's, of the medians. Nothing is left out: what failed is named.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from benchmarks import aims, growth
from benchmarks.outcome import ALONE, OURS, THEIRS, Outcome

BRIEF = (
    "wall s",
    "cpu s",
    "peak rss",
    "requests",
    "bytes up",
    "latency p99 ms",
    "lag p50 ms",
    "MB/s",
    "transactions/s",
    "cpu %",
    "pss",
)
UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B"))
BYTES = ("bytes", "rss", "pss", "log left")


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
    for name, drawing in growth.plots(outcomes).items():
        (directory / name).write_text(drawing)


def read(directory: Path) -> dict[str, Outcome]:
    """What an earlier run wrote, by name; nothing when there was none."""
    file = directory / "results.json"
    if not file.exists():
        return {}
    found = [Outcome(**outcome) for outcome in json.loads(file.read_text())["outcomes"]]
    return {outcome.name: outcome for outcome in found}


def markdown(about: dict[str, str], outcomes: list[Outcome]) -> str:
    lines = ["# Measured", ""]
    lines += [f"- {name}: {what}" for name, what in about.items()]
    lines += [
        "",
        "Medians of all runs; ratios are replicator divided by the other. Each restored "
        "database was compared with its source, row by row; a trial that failed that does "
        "not count and is named.",
        "",
    ]
    lines += aims.table({outcome.name: outcome for outcome in outcomes})
    for outcome in outcomes:
        lines += table(outcome)
    return "\n".join(lines)


def table(outcome: Outcome) -> list[str]:
    systems = list(outcome.trials)
    others = [other for other in (THEIRS, ALONE) if {OURS, other} <= set(systems)]
    heads = ["", *systems, *(f"÷ {other}" for other in others)]
    lines = [f"## {outcome.name}", "", f"{outcome.what}; {circumstances(outcome)}.", ""]
    lines += [f"**failed:** {failure}\n" for failure in outcome.failures]
    lines += [f"| {' | '.join(heads)} |", f"|---{'|---:' * (len(heads) - 1)}|"]
    for name in outcome.names():
        if name.startswith("lag 0"):
            continue  # the single lags are for the plot
        cells = [cell(name, outcome.median(system, name)) for system in systems]
        ratios = [outcome.ratio(name, other) for other in others]
        cells += ["" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]


def circumstances(outcome: Outcome) -> str:
    runs = max((len(trials) for trials in outcome.trials.values()), default=0)
    return ", ".join(
        [
            f"{runs} run{'s' * (runs != 1)}",
            *(f"{name} {what}" for name, what in outcome.about.items()),
        ]
    )


def cell(name: str, number: float | None) -> str:
    return "" if number is None else value(name, number)
