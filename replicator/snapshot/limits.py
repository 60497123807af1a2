"""The numbers of snapshots, each with the reason or the measurement that chose it.

Owns: :class:`SnapshotRule` (when one is due) and :class:`SnapshotLimits` (how one is sent).
Refuses: to read settings; the engine makes both from them.
"""

from __future__ import annotations

from dataclasses import dataclass

from replicator.format.snapshot_blocks import SnapshotEncoder
from replicator.store.retry import BACKGROUND_RETRY

MOST_PARTS = 9000  # S3 allows 10 000; compression may, rarely, make a snapshot grow


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRule:
    """The rule for when a snapshot is due. Times are seconds."""

    interval: float = 3600.0  # least time since the last one
    ratio: float = 0.5  # due if the segments since are larger than this part of the last one …
    max_age: float = 86400.0  # … or if the last one is older
    retry: float = BACKGROUND_RETRY  # after a snapshot that failed


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotLimits:
    """The sizes and times of sending a snapshot. Sizes are bytes and times are seconds."""

    level: int = 3  # of zstd
    block_bytes: int = SnapshotEncoder.BLOCK_BYTES  # raw bytes of each block but the last
    part_bytes: int = 8 << 20
    # With a base: the smallest that S3 allows, for a change costs its part. The copies cost a
    # request each, and no bytes.
    copy_part_bytes: int = 5 << 20
    compressors: int = 2  # threads
    senders: int = 2  # threads
    way_bytes: int = (
        32 << 20
    )  # of pages in memory, so that a checkpoint need not wait for the image
    gate_timeout: float = 600.0  # for the transactions of a finished snapshot to become durable
    gate_poll: float = 0.2  # between two checks whether the snapshot was cancelled

    def part_size(self, size: int, *, copies: bool) -> int:
        """Bytes of each part of a snapshot of up to ``size`` bytes, but for the last. ``copies``:
        the store may copy parts out of another snapshot."""
        least = self.copy_part_bytes if copies else self.part_bytes
        return max(least, -(-size // MOST_PARTS))
