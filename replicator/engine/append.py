"""Writes an encoded segment into the cache, completely or not at all.

Owns: the order of bytes, commit and tip. Refuses: to know the content of a segment.
"""

from __future__ import annotations

from replicator.cache.cache import Cache
from replicator.cache.records import SegmentRecord
from replicator.capture.segmenter import Encoding
from replicator.capture.tip import Tip


def append(cache: Cache, tip: Tip, encoding: Encoding) -> SegmentRecord:
    """Makes the segment durable in the cache, then moves the tip to it.

    After any error the cache and the tip are as before.
    """
    file = cache.create_segment()
    try:
        for piece in encoding:
            file.write(piece)
        cache.commit(file, encoding.record, change=encoding.change)
    except BaseException:
        encoding.undo()
        file.discard()
        raise
    tip.move(encoding.record, encoding.hashes, encoding.pgnos)
    return encoding.record
