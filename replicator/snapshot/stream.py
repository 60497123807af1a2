"""Streams an image of the database into the store as one object.

No temporary copy, and bounded memory, whatever the size: blocks of pages are read in order,
compressed by threads, and sent as parts while the next blocks are read. Blocks that the base
contains already are neither compressed nor sent; see :mod:`.multipart`.

Owns: the order of blocks, and the moment of publication: when the object is complete and the
caller's gate has opened. Refuses: to choose the base.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from replicator.capture.image import Image
from replicator.errors import Cancelled, ObjectExists, ObjectMissing, StoreUnavailable
from replicator.format.integrity import place_of
from replicator.format.object_header import ObjectHeader, Summary
from replicator.format.page_hashes import PageHashes
from replicator.format.snapshot_blocks import Block, SnapshotEncoder, compress_block
from replicator.snapshot.base import BaseUnusable, SnapshotBase
from replicator.snapshot.limits import SnapshotLimits
from replicator.snapshot.multipart import PartStream
from replicator.snapshot.resume import SnapshotUpload, UploadJournal
from replicator.store.base import Store


@dataclass(frozen=True, slots=True)
class SentSnapshot:
    """A snapshot in the store. Of ``summary.size`` bytes, the store copied ``copied_bytes``."""

    hashes: PageHashes
    summary: Summary
    copied_bytes: int

    @property
    def sent_bytes(self) -> int:
        return self.summary.size - self.copied_bytes


def send_snapshot(
    image: Image,
    store: Store,
    header: ObjectHeader,
    key: str,
    journal: UploadJournal,
    *,
    limits: SnapshotLimits,
    gate: Callable[[PageHashes], None],
    cancelled: Callable[[], bool],
    base: SnapshotBase | None = None,
) -> SentSnapshot:
    """Stream ``image`` to ``key``. Calls ``gate`` with the image's page hashes once the store has
    all bytes, and before the object appears; it may wait, and it may raise.

    Resumes an upload in the ``journal``: parts that the store confirms are not sent again.
    ``UploadDiffers`` if one of them has other bytes, ``BaseUnusable`` or ``CopyRefused`` about
    ``base``; the upload is aborted then. Without a base, every byte is sent.

    An object that exists at ``key`` counts as this one: the key names the generation and the
    transaction, so an earlier attempt with the same content made it.
    """
    encoder = SnapshotEncoder(header, place_of(store.integrity, key))
    upload = SnapshotUpload(
        key,
        "",
        limits.part_size(image.pages * image.page_size, copies=base is not None),
        header.generation,
        header.first_txid,
        header.created_ms,
    )
    with ThreadPoolExecutor(limits.compressors, "replicator-compress") as pool:
        blocks = _Blocks(image, limits, base, pool)
        with PartStream(
            store, upload, journal, base, blocks.again, senders=limits.senders
        ) as stream:
            stream.write(encoder.start())
            for number, block in blocks.all(cancelled):
                encoder.add(block)
                if block.data:
                    stream.write(block.data)
                else:
                    stream.refer(number, block.size)
            hashes, copied = blocks.hashes, stream.copied_bytes
            sent_ms = base.sent_ms if base is not None and copied else None
            end, summary = encoder.finish(
                last_txid=header.first_txid, state=hashes.state, sent_ms=sent_ms
            )
            stream.write(end)
            stream.flush()
            gate(hashes)
            try:
                stream.publish(summary)
            except ObjectExists:
                _require_object(store, key)
    return SentSnapshot(hashes, summary, copied)


def _require_object(store: Store, key: str) -> None:
    """A marker will vouch for the object, so the answer "it exists" is checked."""
    try:
        store.head(key)
    except ObjectMissing as error:
        raise StoreUnavailable(
            f"{key}: the store answers that it exists, and does not have it"
        ) from error


@dataclass(slots=True)
class _Blocks:
    """The blocks of an image. Those that ``base`` contains come without their bytes."""

    image: Image
    limits: SnapshotLimits
    base: SnapshotBase | None
    pool: ThreadPoolExecutor
    hashes: PageHashes = field(init=False)  # of the pages that ``all`` read
    step: int = field(init=False)  # pages of a block

    def __post_init__(self) -> None:
        self.hashes = PageHashes(self.image.page_size)
        self.step = max(1, self.limits.block_bytes // self.image.page_size)

    def all(self, cancelled: Callable[[], bool]) -> Iterator[tuple[int, Block]]:
        """Each with its number, from 0; reads and hashes every page of the image."""

        def begin(number: int) -> Future[Block]:
            if cancelled():
                raise Cancelled("the snapshot was cancelled because the replicator stops")
            data = self._read(number)
            self.hashes.extend(number * self.step + 1, data)
            return self.pool.submit(self._block, number, data)

        numbers = range(-(-self.image.pages // self.step))
        return zip(numbers, self._overlapping(begin, numbers), strict=True)

    def again(self, numbers: list[int]) -> Iterator[bytes]:
        """The bytes of blocks of the base. ``BaseUnusable`` if today's compressor, or its level,
        makes other bytes of the same pages."""

        def begin(number: int) -> Future[Block]:
            return self.pool.submit(
                compress_block, self._read(number), self.limits.level, known.pages(number)
            )

        if not numbers:
            return
        assert self.base is not None
        known = self.base.digests
        for number, block in zip(numbers, self._overlapping(begin, numbers), strict=True):
            if block.sha256 != known.block(number):
                raise BaseUnusable(f"the compressor makes other bytes of block {number} today")
            yield block.data

    def _read(self, number: int) -> bytearray:
        first = number * self.step + 1
        return self.image.read(first, min(self.step, self.image.pages + 1 - first))

    def _block(self, number: int, data: bytearray) -> Block:
        digest = hashlib.sha256(data).digest()
        known = self.base and self.base.block(number, len(data), digest)
        return known or compress_block(data, self.limits.level, digest)

    def _overlapping(
        self, begin: Callable[[int], Future[Block]], numbers: list[int] | range
    ) -> Iterator[Block]:
        """The results in order, while threads make a few more."""
        waiting: deque[Future[Block]] = deque()
        for number in numbers:
            waiting.append(begin(number))
            if len(waiting) > 2 * self.limits.compressors:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
