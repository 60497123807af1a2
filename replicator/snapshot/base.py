"""The snapshot in the store that the next one may take frames from, without reading them.

Owns the choice: a snapshot that tells the digests of its frames, and none of whose bytes was
sent longer ago than ``OLDEST``. What the store has spoilt since then is inherited by copies, so
everything is sent anew every week, and whenever the present was found damaged.
Refuses to judge a frame by anything but the SHA-256 of its pages.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from replicator.archive.facts import tail_of
from replicator.errors import DamageError, ObjectMissing, ReplicatorError
from replicator.format.envelope import SeekEntry
from replicator.format.object_header import BlockDigests
from replicator.format.snapshot_blocks import Block
from replicator.store.base import ObjectInfo, Store

OLDEST = 7 * 24 * 3600 * 1000  # ms

log = logging.getLogger(__name__)


class SourceUnusable(ReplicatorError):
    """The snapshot cannot be made with frames of this source; it can be made without."""

    code = "base_unusable"


@dataclass(frozen=True, slots=True)
class Source:
    """``info`` is what the store told of the object before its tail was read, so that a copy
    which insists on its ETag is of the object that the tail describes."""

    info: ObjectInfo
    entries: tuple[SeekEntry, ...]
    digests: BlockDigests

    @property
    def sent_ms(self) -> int:
        return self.digests.sent_ms

    def frame(self, number: int, raw: int, pages_sha256: bytes) -> Block | None:
        """Frame ``number``, if these are its pages."""
        if number >= len(self.entries) or self.digests.pages(number) != pages_sha256:
            return None
        return Block(self.entries[number].compressed, raw, self.digests.block(number), pages_sha256)


class Sources:
    """Finds sources, as long as the store is known to copy, or nothing is known of that."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._refused = False

    def find(self, key: str, now_ms: int) -> Source | None:
        """The snapshot of that key as a source, None if it is none."""
        if self._refused:
            return None
        try:
            info = self._store.head(key)
            tail = tail_of(self._store, info.key, info.size)
        except (DamageError, ObjectMissing) as error:
            log.info("%s is no source for the next snapshot: %s", key, error)
            return None
        digests = tail.trailer.blocks
        if digests is None or not 0 <= now_ms - digests.sent_ms < OLDEST:
            return None
        return Source(info, tail.seek or (), digests)

    def refused(self, error: ReplicatorError) -> None:
        """The store does not copy: it is not asked again."""
        self._refused = True
        log.info("snapshots are sent as a whole, for the store does not copy: %s", error)
