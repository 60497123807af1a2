"""Stores that break a promise, each in one way that was seen."""

from dataclasses import replace

from replicator.store.memory import MemoryStore


class RewritingStore(MemoryStore):
    """Keeps each object under ``rewrite(key)``, and answers to both keys; a listing compares the
    prefix with the keys that it keeps. So does SeaweedFS with a backslash."""

    def __init__(self, rewrite):
        super().__init__()
        self._rewrite = rewrite

    def put(self, key, body, *, metadata=None, if_absent=True):
        super().put(self._rewrite(key), body, metadata=metadata, if_absent=if_absent)

    def get(self, key, start=0, length=None):
        return super().get(self._rewrite(key), start, length)

    def head(self, key):
        return super().head(self._rewrite(key))

    def delete(self, key):
        super().delete(self._rewrite(key))


class DroppingStore(MemoryStore):
    """Confirms the objects whose key contains ``lost``, and does not keep them."""

    lost = ""

    def put(self, key, body, *, metadata=None, if_absent=True):
        if not self.lost or self.lost not in key:
            super().put(key, body, metadata=metadata, if_absent=if_absent)


class InventingStore(MemoryStore):
    """Lists each object with the size ``invent(size)``."""

    def __init__(self, invent):
        super().__init__()
        self._invent = invent

    def list(self, prefix, *, start_after=""):
        for info in super().list(prefix, start_after=start_after):
            yield replace(info, size=self._invent(info.size))
