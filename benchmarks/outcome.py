"""What the trials of one case gave, and medians and ratios of it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

OURS, THEIRS, ALONE = "replicator", "litestream", "alone"


@dataclass
class Outcome:
    """All trials of one case: for each system, a list of figures. ``about``: when it was measured,
    with which commit, and how busy the machine was."""

    name: str
    what: str
    about: dict[str, str] = field(default_factory=dict)
    trials: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, system: str, figures: dict[str, float]) -> None:
        self.trials.setdefault(system, []).append(figures)

    def names(self) -> list[str]:
        """Every figure, in the order in which it was first met."""
        all_of_them = [
            name for trials in self.trials.values() for trial in trials for name in trial
        ]
        return list(dict.fromkeys(all_of_them))

    def values(self, system: str, name: str) -> list[float]:
        """Of all runs. A kind of request that was never made counts as none."""
        trials = self.trials.get(system, [])
        counted = "requests" in name and any("requests" in trial for trial in trials)
        return [trial.get(name, 0.0) for trial in trials if counted or name in trial]

    def median(self, system: str, name: str) -> float | None:
        values = self.values(system, name)
        return statistics.median(values) if values else None

    def ratio(self, name: str, other: str = THEIRS) -> float | None:
        """Ours divided by the other's; None without both, or by nothing."""
        ours, theirs = self.median(OURS, name), self.median(other, name)
        return ours / theirs if ours is not None and theirs else None
