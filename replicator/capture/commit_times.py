"""Commit times: observations of the WAL, and the transactions whose frames they saw.

SQLite writes no times into its WAL. Each look records the end of the WAL and the time of its last
write; a transaction was committed no later than the first look that saw its end. The cumulative
checksum of the captured frames proves that they are the observed ones, and not those of another
transaction after a rollback.

Owns: the observations of one WAL. Refuses: to read clocks or files.
"""

from __future__ import annotations

from collections.abc import Sequence

from replicator.capture.limits import CaptureLimits
from replicator.capture.reader import Batch, same_wal
from replicator.model import WalPosition

Observation = tuple[int, int]  # a frame of the WAL that is captured now, and its time (ms)


class WalObservations:
    """Used by the capture thread alone."""

    def __init__(self, limits: CaptureLimits) -> None:
        self._limit = limits.observations
        self._seen: list[tuple[WalPosition, int]] = []

    def record(self, end: WalPosition, at_ms: int) -> None:
        """The WAL reached ``end``, whose frame was written at ``at_ms`` or before."""
        if self._seen and self._seen[-1][0] == end:
            return
        while self._seen and self._seen[-1][0].frame >= end.frame:
            self._seen.pop()  # rolled back, or of a WAL that was reset
        self._seen.append((end, at_ms))
        if len(self._seen) > self._limit:
            del self._seen[:-1:2]

    def matching(self, batch: Batch) -> list[Observation]:
        """The observations of exactly these frames, in their order."""
        first, last = batch.base.frame + 1, batch.base.frame + batch.count
        return [
            (seen.frame, at_ms)
            for seen, at_ms in self._seen
            if same_wal(seen, batch.base)
            and first <= seen.frame <= last
            and tuple(batch.frames.checksums[seen.frame - first].tolist()) == seen.checksum
        ]

    def captured(self, end: WalPosition) -> None:
        """Forgets the observations up to ``end``; later ones stay."""
        self._seen = [
            (seen, at_ms)
            for seen, at_ms in self._seen
            if same_wal(seen, end) and seen.frame > end.frame
        ]


def commit_times(
    frames: Sequence[int], seen: Sequence[Observation], *, least: int, now: int
) -> tuple[int, ...]:
    """The time (ms) of each transaction whose last frame is one of the ascending ``frames``: that
    of the first observation at or behind it, else ``now``. Times never decrease, and none is
    before ``least``."""
    times, at = [], 0
    for frame in frames:
        while at < len(seen) and seen[at][0] < frame:
            at += 1
        least = max(least, min(seen[at][1], now) if at < len(seen) else now)
        times.append(least)
    return tuple(times)
