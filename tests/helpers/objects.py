"""Objects of an archive as values, for tests that need no store."""

from replicator.archive.index import SnapshotObject, WalObject
from replicator.format.object_header import ObjectFacts
from replicator.model import Kind

KINDS = {0: Kind.SEGMENT, 1: Kind.MERGE, 2: Kind.MERGE_NEWEST}


def facts(
    first,
    last,
    generation,
    *,
    kind=Kind.SEGMENT,
    before=0,
    after=0,
    at_ms=0,
    commit_ms=None,
    indexed=True,
):
    """The facts of an object that was created at ``at_ms``."""
    return ObjectFacts(
        kind,
        generation,
        first,
        last,
        4096,
        1,
        before,
        after,
        at_ms,
        commit_ms,
        commit_ms,
        "0" * 64,
        "writer",
        indexed=indexed,
    )


def wal_object(first, last, generation=None, *, key="", level=0, size=10, at_ms=0, **told):
    """A segment or a merge. It was asked if a generation is given, and was stored at ``at_ms``."""
    known = None
    if generation is not None:
        known = facts(first, last, generation, at_ms=at_ms, **{"kind": KINDS[level], **told})
    return WalObject(key or f"{level}/{first}-{last}", level, first, last, size, at_ms, known)


def snapshot_object(txid, generation, *, key="", size=100, at_ms=0, after=None):
    """A snapshot. It was asked if its checksum is given."""
    known = None
    if after is not None:
        known = facts(
            txid, txid, generation, kind=Kind.SNAPSHOT, before=after, after=after, at_ms=at_ms
        )
    return SnapshotObject(key or f"s{txid}", txid, generation, size, at_ms, known)
