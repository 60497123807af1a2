"""Decides whether a snapshot is due: pure.

Owns: the rule over the last snapshot and the segments since. Refuses: clocks, stores, threads.
"""

from __future__ import annotations

from dataclasses import dataclass

from replicator.snapshot.limits import SnapshotRule


@dataclass(frozen=True, slots=True)
class SnapshotFacts:
    """The newest snapshot in the store: its txid, when the store acknowledged it (ms), its
    bytes."""

    txid: int
    at_ms: int
    size: int


def snapshot_due(
    last: SnapshotFacts | None, *, at_ms: int, segment_bytes: int, rule: SnapshotRule
) -> bool:
    """True if the ``segment_bytes`` since the last snapshot are worth another one."""
    if last is None:
        return segment_bytes > 0
    age = (at_ms - last.at_ms) / 1000
    if segment_bytes <= 0 or age < rule.interval:
        return False
    return segment_bytes > rule.ratio * last.size or age >= rule.max_age
