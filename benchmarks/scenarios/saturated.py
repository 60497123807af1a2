"""A writer that never pauses: what it keeps of its speed, and how long it ever waits."""

from __future__ import annotations

from benchmarks.scenarios.base import WITH_ALONE, Case, Effort, written


def cases(effort: Effort) -> list[Case]:
    seconds = effort.saturated_seconds
    return [
        Case(
            "saturated",
            f"small transactions as fast as one writer can, {seconds:g} s",
            WITH_ALONE,
            lambda trial: written(trial, effort.oltp_db, "saturated", seconds=seconds),
        )
    ]
