"""Trimming: files of segments that every destination acknowledged are removed, oldest first.

Owns: the choice of the files, and which rows go with them. Refuses: to touch a segment that any
destination waits for. Rows are removed first and files afterwards, so a crash between the two
leaves files without a row, which the next opening removes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from replicator.cache.ledger import Ledger
from replicator.cache.limits import CacheLimits
from replicator.cache.records import SegmentRecord
from replicator.cache.segment_files import SegmentFiles


def trim(ledger: Ledger, segments: SegmentFiles, keep_bytes: int, limits: CacheLimits) -> int:
    """Removes files until all together take at most ``keep_bytes`` and the ledger has at most
    ``limits.keep_segments`` rows; returns the bytes freed."""
    freed = 0
    while gone := _trim_batch(ledger, segments, keep_bytes, limits):
        freed += sum(record.size for record in gone)
    return freed


def _trim_batch(
    ledger: Ledger, segments: SegmentFiles, keep_bytes: int, limits: CacheLimits
) -> list[SegmentRecord]:
    excess = ledger.stored_bytes() - keep_bytes
    crowd = ledger.count() - limits.keep_segments
    if excess <= 0 and crowd <= 0:
        return []
    known = ledger.oldest_acknowledged(limits.trim_batch)
    gone = oldest(known, excess, crowd)
    if gone:
        release(ledger, segments, known, gone)
    return gone


def release(
    ledger: Ledger,
    segments: SegmentFiles,
    known: Sequence[SegmentRecord],
    gone: Sequence[SegmentRecord],
) -> None:
    """Records that the files of ``gone`` are removed, then removes them.

    ``known`` are the oldest acknowledged segments. A row without a file is removed at the old
    end only, where it leaves no hole. The row of the last of ``known`` stays: it marks
    the position of the destinations.
    """
    names = {record.first_txid for record in gone}
    kept = next(
        (n for n, r in enumerate(known) if r.stored and r.first_txid not in names),
        len(known) - 1,
    )
    with ledger.transaction():
        ledger.remove(known[:kept])
        for record in known[kept:]:
            if record.first_txid in names:
                ledger.save_segment(replace(record, stored=False))
    segments.remove(gone)


def oldest(known: Sequence[SegmentRecord], excess: int, crowd: int) -> list[SegmentRecord]:
    """The oldest stored segments that together free ``excess`` bytes and ``crowd`` rows."""
    gone: list[SegmentRecord] = []
    for record in known:
        if excess <= 0 and crowd <= 0:
            break
        crowd -= 1
        if record.stored:
            excess -= record.size
            gone.append(record)
    return gone
