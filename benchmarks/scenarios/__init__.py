"""The scenarios, in the order of the report. Each file says what it does and what it counts."""

from __future__ import annotations

from benchmarks.scenarios import (
    burst,
    growth,
    idle,
    limits,
    lone,
    many,
    oltp,
    restart,
    restore,
    saturated,
    snapshot,
)
from benchmarks.scenarios.base import Case, Effort

FILES = (oltp, saturated, burst, lone, idle, snapshot, restore, restart, many, growth, limits)


def cases(effort: Effort) -> list[Case]:
    """What there is to run at this effort."""
    return [case for file in FILES for case in file.cases(effort)]
