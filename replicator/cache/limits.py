"""The limits of the cache: small numbers that tests make smaller."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """Counts and bytes. The defaults suit every database."""

    # Acknowledged segments kept for merges. A steady writer makes one a second and the smallest
    # merge covers five minutes, so an hour is ample; the bound keeps opening quick.
    keep_segments: int = 4096
    trim_batch: int = 64  # files removed after one commit of the ledger
    # What segments leave free on the disk, for the ledger: its WAL grows to 4 MB before SQLite
    # reuses it. Without it the ledger could not record that a segment was sent, and so no
    # file could be removed.
    reserve_bytes: int = 8 << 20
    # Changes of the page hashes may grow to the size of the base file, so that rewriting it costs
    # no more than they did; below this many bytes a rewrite does not pay for its three syncs.
    least_changes: int = 4 << 20


DEFAULT_LIMITS = CacheLimits()
