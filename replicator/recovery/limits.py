"""The numbers of a restore, each with the reason or the measurement that chose it.

Owns: :class:`RecoveryLimits`. Refuses: to read settings; a restore has none of these.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    most_useless: int = 40  # objects that prove useless only while they are read

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


DEFAULT_LIMITS = RecoveryLimits()
