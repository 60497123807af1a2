"""When the log was seen to reach where: commit times, as closely as they can be known.

SQLite writes no times into its log. Each look notes how far the log goes and when it was
written last; a transaction was committed no later than the first look that saw its end. The
cumulative checksum at that place proves, when the frames are captured, that they are those that
were seen, and not others of a transaction that was rolled back.
"""

from __future__ import annotations

from collections.abc import Sequence

from replicator.capture.reader import Batch, same_wal
from replicator.model import WalPosition

KEEP = 4096  # observations of one capture; beyond it every other one is forgotten

Seen = tuple[int, int]  # a frame of the log that is being captured, and when it was there (ms)


class WalObservations:
    """Used by the capture thread alone."""

    def __init__(self) -> None:
        self._seen: list[tuple[WalPosition, int]] = []

    def record(self, end: WalPosition, at_ms: int) -> None:
        """The log reached ``end``, whose frame was written at ``at_ms`` or before."""
        if self._seen and self._seen[-1][0] == end:
            return
        while self._seen and self._seen[-1][0].frame >= end.frame:
            self._seen.pop()  # rolled back, or of a log that is no more
        self._seen.append((end, at_ms))
        if len(self._seen) > KEEP:
            del self._seen[:-1:2]

    def matching(self, batch: Batch) -> list[Seen]:
        """The observations that were of these very frames, in their order."""
        first, last = batch.base.frame + 1, batch.base.frame + batch.count
        return [
            (seen.frame, at_ms)
            for seen, at_ms in self._seen
            if same_wal(seen, batch.base)
            and first <= seen.frame <= last
            and tuple(batch.frames.checksums[seen.frame - first].tolist()) == seen.checksum
        ]

    def captured(self, end: WalPosition) -> None:
        """Everything up to ``end`` was captured; what was seen behind it is kept."""
        self._seen = [
            (seen, at_ms)
            for seen, at_ms in self._seen
            if same_wal(seen, end) and seen.frame > end.frame
        ]


def commit_times(
    frames: Sequence[int], seen: Sequence[Seen], *, least: int, now: int
) -> tuple[int, ...]:
    """The time (ms) of each transaction whose last frame is one of the ascending ``frames``: of
    the first sighting at or behind it, else ``now``. They never go back, nor before ``least``."""
    times, at = [], 0
    for frame in frames:
        while at < len(seen) and seen[at][0] < frame:
            at += 1
        least = max(least, min(seen[at][1], now) if at < len(seen) else now)
        times.append(least)
    return tuple(times)
