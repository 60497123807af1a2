"""Steady OLTP: 200 transactions a second, each changes three balances and adds a row. The rows are
half random, and in ``oltp-real`` orders as people write them.
"""

from __future__ import annotations

from benchmarks.scenarios.base import BOTH, WITH_ALONE, Case, Effort, Figures, Trial, written


def cases(effort: Effort) -> list[Case]:
    what = f"{effort.oltp_db} MB database, {effort.oltp_seconds:g} s at 200 transactions/s"

    def run(trial: Trial, *, real: bool) -> Figures:
        return written(
            trial, effort.oltp_db, "steady", real=real, rate=200, seconds=effort.oltp_seconds
        )

    return [
        Case("oltp", what, WITH_ALONE, lambda trial: run(trial, real=False)),
        Case("oltp-real", f"{what}, of orders", BOTH, lambda trial: run(trial, real=True)),
    ]
