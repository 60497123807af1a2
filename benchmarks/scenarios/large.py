"""A 5 GiB database: first snapshot and restore; only with ``--large``."""

from __future__ import annotations

from benchmarks.scenarios import restore, snapshot
from benchmarks.scenarios.base import BOTH, Case, Effort

MEGABYTES = 5 * 1024**3 / 1e6


def cases(effort: Effort) -> list[Case]:
    if not effort.large:
        return []
    return [Case("large-snapshot", "first snapshot of a 5 GiB database", BOTH,
                 lambda trial: snapshot.run(trial, MEGABYTES)),
            Case("large-restore", "restore of a 5 GiB database", BOTH,
                 lambda trial: restore.segments(trial, MEGABYTES, 0))]
