"""The numbers of the upload, each with the reason or the measurement that chose it.

Owns: :class:`UploadLimits`. Refuses: to read settings; the engine makes the limits from them.
"""

from __future__ import annotations

from dataclasses import dataclass

from replicator.store.retry import APPEND_RETRIES, REFUSED_APPEND_RETRIES, RetryPolicy
from replicator.upload.budget import UploadBudget

MOST_PARTS = 9000  # S3 allows 10 000


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadLimits:
    """Sizes are bytes and times are seconds."""

    interval: float = 1.0  # least time between two appends in the long run
    burst: int = 10  # appends that need no interval between them, after a rest
    keep_bytes: int = 256 << 20  # of acknowledged segments that stay in the cache
    part_bytes: int = 8 << 20  # of a multipart upload
    # Up to here one PUT. It takes every segment but a single huge transaction, because racing
    # completions of multipart uploads may have more than one winner (SeaweedFS 4.48: 28 of 55
    # races), which racing PUTs never had.
    single_put_bytes: int = 48 << 20
    parallel_parts: int = 4
    read_back_every: int = 64  # appends; a HEAD costs a twelfth of a PUT on AWS, so 0.13 % more
    # Before each further question for an object that seems to be missing.
    read_back_pauses: tuple[float, ...] = (0.5, 2.0)
    transient: RetryPolicy = APPEND_RETRIES
    refused: RetryPolicy = REFUSED_APPEND_RETRIES

    @property
    def budget(self) -> UploadBudget:
        """A full budget of appends."""
        return UploadBudget(self.interval, self.burst)

    def part_size(self, size: int) -> int:
        """Bytes of each part of an upload of ``size`` bytes, but for the last."""
        return max(self.part_bytes, -(-size // MOST_PARTS))
