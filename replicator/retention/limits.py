"""The numbers of the retention worker.

Owns: :class:`RetentionLimits`. Refuses: to read settings, which hold the rules themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

from replicator.store.retry import RETENTION_RETRIES, RetryPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionLimits:
    """Names that end in ``_ms`` are in milliseconds, other times in seconds."""

    merge_grace_ms: int = 5 * 60_000  # between a merge and the deletion of its sources
    prune_ms: int = 3_600_000  # between two prunings by rule
    begin_ms: int = 6 * 60_000  # after the first append, when the first merge may be due
    fetch_bytes: int = 16 << 20  # most that one merge downloads
    refused_ms: int = 6 * 3_600_000  # until a bucket that denies deletions is asked again
    skew_ms: int = 86_400_000  # most that the local clock may be ahead of the store's times
    tick: float = 15.0  # between two looks for appended segments
    rest: float = 4.0  # times as long as the last step took
    retries: RetryPolicy = RETENTION_RETRIES  # of its pauses after failures
