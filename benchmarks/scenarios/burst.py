"""A burst of large blobs: 1 MiB a transaction, as fast as one writer can."""

from __future__ import annotations

from benchmarks.scenarios.base import WITH_ALONE, Case, Effort, written


def cases(effort: Effort) -> list[Case]:
    return [
        Case(
            "burst",
            f"{effort.blobs} MiB in blobs of 1 MiB, until all is in the bucket",
            WITH_ALONE,
            lambda trial: written(trial, effort.oltp_db, "blobs", count=effort.blobs),
        )
    ]
