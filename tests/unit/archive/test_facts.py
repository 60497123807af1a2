"""archive/facts.py: the ends of objects, which stay in memory up to a size."""

from replicator.archive.facts import FactsReader
from replicator.archive.index import SnapshotObject
from replicator.archive.listing import list_all


def snapshots(bucket):
    return [
        item for item in list_all(bucket.store, bucket.keys) if isinstance(item, SnapshotObject)
    ]


def test_the_ends_of_snapshots_are_kept_up_to_a_size(bucket):
    """With room for one only, the oldest one is read again; with more room none is."""
    first, second = snapshots(bucket)[:2]
    for room, reads in ((1, 3), (1 << 20, 2)):
        reader = FactsReader(counted := Counted(bucket.store), tails_bytes=room)
        for item in (first, second, second, first):
            assert reader.tail(item).trailer.last_txid == item.txid
        assert counted.gets == reads


class Counted:
    """Passes calls on to a store, and counts the reads."""

    def __init__(self, store):
        self._store, self.gets = store, 0

    def get(self, *arguments, **options):
        self.gets += 1
        return self._store.get(*arguments, **options)

    def __getattr__(self, name):
        return getattr(self._store, name)
