"""Steady OLTP: 200 transactions a second, each changes three balances and adds a row."""

from __future__ import annotations

from benchmarks.scenarios.base import WITH_ALONE, Case, Effort, written


def cases(effort: Effort) -> list[Case]:
    seconds = effort.oltp_seconds
    return [Case("oltp", f"{effort.oltp_db} MB database, {seconds:g} s at 200 transactions/s",
                 WITH_ALONE, lambda trial: written(trial, effort.oltp_db, "steady", rate=200,
                                                   seconds=seconds))]
