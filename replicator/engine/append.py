"""Writes an encoded segment into the cache, completely or not at all.

Owns: the order of bytes, commit and tip. Refuses: to know the content of a segment.
"""

from __future__ import annotations

from replicator.cache.cache import Cache
from replicator.cache.records import SegmentRecord
from replicator.capture.segmenter import Encoding
from replicator.capture.tip import Tip
from replicator.engine.evidence import counters_fact


def append(cache: Cache, tip: Tip, encoding: Encoding) -> SegmentRecord:
    """Makes the segment durable in the cache, then moves the tip to it.

    After any error the cache and the tip are as before.
    """
    file = cache.create_segment()
    try:
        for piece in encoding:
            file.write(piece)
        header = encoding.header
        counters = counters_fact(header) if header is not None else ""
        cache.commit(file, encoding.record, change=encoding.change, counters=counters)
    except BaseException:
        encoding.undo()
        file.discard()
        raise
    tip.move(encoding.record, encoding.hashes, encoding.pgnos)
    return encoding.record
