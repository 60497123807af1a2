"""The numbers of a restore, each with the reason or the measurement that chose it.

Owns: :class:`RecoveryLimits` and :class:`SetLimits`. Refuses: to read settings; a restore has none
of these.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from replicator.store.retry import RESTORE_RETRIES, RetryPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryLimits:
    """Sizes are bytes."""

    retries: RetryPolicy = RESTORE_RETRIES

    # fetching
    threads: int = 8
    range_bytes: int = 4 << 20  # of one request; smaller ones cost round trips, larger ones memory
    window_bytes: int = 32 << 20  # of all requests whose bytes are awaited or held

    # planning
    one_by_one: int = 4  # useless objects; after so many, all others are asked at once
    # Objects that prove useless only while they are read. An archive whose disk lost the middle of
    # many snapshots is one, a bucket full of made-up objects the other: only the time differs.
    most_useless: int = 40  # after so many, …
    useless_patience: float = 900.0  # … and so many seconds since the first, a restore ends

    # segments
    one_get_bytes: int = 16 << 20  # larger segments are fetched in parallel into a local file
    in_memory_bytes: int = 64 << 20  # of a decoded segment that is kept until its pages are written

    # snapshots
    group_raw_bytes: int = 32 << 20  # of pages in one request
    sync_raw_bytes: int = 128 << 20  # of pages between two syncs; the caller makes the last one
    most_block_bytes: int = 1 << 20  # of pages in a block, by the format; a larger one is damage
    hash_share: int = 64  # pages of 512 bytes have hashes of so small a share of their bytes

    # verification, which reads snapshots in smaller groups
    proved_raw_bytes: int = 8 << 20  # of pages in one request
    large_share: int = 2  # large objects that are read at the same time


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLimits:
    """Of several restores in one command."""

    # At once. Small databases wait for the store most of the time, but Python runs one at a time.
    databases: int = 8
    each: RecoveryLimits = field(default_factory=RecoveryLimits)

    def of_one(self, count: int) -> RecoveryLimits:
        """The limits of each of ``count`` databases: together they take at most the threads and
        the memory of two restores."""
        share = max(1, min(self.databases, count) // 2)
        each = self.each
        return replace(
            each,
            threads=max(2, each.threads // share),
            window_bytes=max(each.range_bytes, each.window_bytes // share),
            in_memory_bytes=each.in_memory_bytes // share,
            group_raw_bytes=each.group_raw_bytes // share,
            one_get_bytes=each.one_get_bytes // share,
        )


DEFAULT_LIMITS = RecoveryLimits()
DEFAULT_SET = SetLimits()
