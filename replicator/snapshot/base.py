"""The base of the next snapshot: a stored snapshot whose blocks it may copy without reading them.

Owns: the choice. A base has the digests of its blocks, and none of its bytes was sent longer ago
than ``OLDEST_MS``. Copies inherit the damage that the store has done to bytes since, so every byte
is sent again once a week, and whenever the archive was found damaged.
Refuses: to judge a block by anything but the SHA-256 of its pages.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from replicator.archive.facts import tail_of
from replicator.errors import ObjectMissing, ReplicatorError, Unreadable
from replicator.format.object_header import BlockDigests
from replicator.format.seek_table import SeekEntry
from replicator.format.snapshot_blocks import Block
from replicator.store.base import ObjectInfo, Store

OLDEST_MS = 7 * 24 * 3600 * 1000

log = logging.getLogger(__name__)


class BaseUnusable(ReplicatorError):
    """The snapshot cannot be made with blocks of this base; it can be made without."""

    code = "base_unusable"


@dataclass(frozen=True, slots=True)
class SnapshotBase:
    """``info`` was read before the object's tail, so a copy that insists on its ETag is of the
    object that the tail describes."""

    info: ObjectInfo
    entries: Sequence[SeekEntry]
    digests: BlockDigests

    @property
    def sent_ms(self) -> int:
        return self.digests.sent_ms

    def block(self, number: int, raw: int, pages_sha256: bytes) -> Block | None:
        """Block ``number`` without its bytes, if it is of these pages."""
        if number >= len(self.entries) or self.digests.pages(number) != pages_sha256:
            return None
        return Block(self.entries[number].compressed, raw, self.digests.block(number), pages_sha256)


class BaseFinder:
    """Finds bases, unless the store is known not to copy."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._refused = False

    def find(self, key: str, now_ms: int) -> SnapshotBase | None:
        """The snapshot of that key as a base, None if it cannot be one."""
        if self._refused:
            return None
        try:
            info = self._store.head(key)
            tail = tail_of(self._store, info.key, info.size)
        except (Unreadable, ObjectMissing) as error:
            log.info("%s is no base for the next snapshot: %s", key, error)
            return None
        digests = tail.trailer.blocks
        if digests is None or not 0 <= now_ms - digests.sent_ms < OLDEST_MS:
            return None
        return SnapshotBase(info, tail.seek or (), digests)

    def refused(self, error: ReplicatorError) -> None:
        """The store does not copy: no later snapshot gets a base."""
        self._refused = True
        log.info("snapshots are sent as a whole, because the store does not copy: %s", error)
