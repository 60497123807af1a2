"""Snapshots: an image of the database, streamed into the store as one object.

No temporary copy and bounded memory, whatever the size: blocks of pages are read in order,
compressed by threads, and sent as parts while the next blocks are read. Blocks that the
snapshot before holds already are neither compressed nor sent; see :mod:`.multipart`. The object
appears in the store only when it is complete, and only after the caller's gate has opened.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from replicator.capture.image import Image
from replicator.errors import Cancelled, ObjectExists, ObjectMissing, StoreUnavailable
from replicator.format.object_header import ObjectHeader, Summary
from replicator.format.page_hashes import PageHashes
from replicator.format.snapshot_blocks import Block, SnapshotEncoder, compress_block
from replicator.snapshot.base import BaseUnusable, SnapshotBase
from replicator.snapshot.limits import SnapshotLimits
from replicator.snapshot.multipart import PartStream
from replicator.snapshot.resume import Begun, Unfinished
from replicator.store.base import Store


@dataclass(frozen=True, slots=True)
class Shipped:
    """A snapshot in the store. Of ``summary.size`` bytes, the store copied ``copied_bytes``."""

    hashes: PageHashes
    summary: Summary
    copied_bytes: int

    @property
    def sent_bytes(self) -> int:
        return self.summary.size - self.copied_bytes


def ship_snapshot(
    image: Image,
    store: Store,
    header: ObjectHeader,
    key: str,
    unfinished: Unfinished,
    *,
    limits: SnapshotLimits,
    gate: Callable[[PageHashes], None],
    cancelled: Callable[[], bool],
    source: SnapshotBase | None = None,
) -> Shipped:
    """Stream ``image`` to ``key``. ``gate`` is called with the image's page hashes once all
    bytes are in the store and before the object appears; it may wait, and it may raise.

    An upload that ``unfinished`` knows is gone on with: parts that the store confirms are not
    sent again. ``Differs`` when one of them holds other bytes; then the upload was given up.
    So it is with ``BaseUnusable`` and ``CopyRefused``, about ``source``: without one, every
    byte is sent.

    An object that stands there already is taken for ours: the key names the generation and
    the transaction, so an earlier attempt with the same content must have made it.
    """
    encoder = SnapshotEncoder(header)
    begun = Begun(
        key,
        "",
        limits.part_size(image.pages * image.page_size, copies=source is not None),
        header.generation,
        header.first_txid,
        header.created_ms,
    )
    with ThreadPoolExecutor(limits.compressors, "replicator-compress") as pool:
        frames = _Frames(image, limits, source, pool)
        with PartStream(
            store, begun, unfinished, source, frames.again, senders=limits.senders
        ) as stream:
            stream.write(encoder.start())
            for number, frame in frames.all(cancelled):
                encoder.add(frame)
                if frame.data:
                    stream.write(frame.data)
                else:
                    stream.refer(number, frame.size)
            hashes, copied = frames.hashes, stream.copied_bytes
            sent_ms = source.sent_ms if source is not None and copied else None
            end, summary = encoder.finish(
                last_txid=header.first_txid, state=hashes.state, sent_ms=sent_ms
            )
            stream.write(end)
            stream.flush()
            gate(hashes)
            try:
                stream.publish(summary)
            except ObjectExists:
                _require_there(store, key)
    return Shipped(hashes, summary, copied)


def _require_there(store: Store, key: str) -> None:
    """A marker is going to vouch for the object, so "it exists" is not taken on trust."""
    try:
        store.head(key)
    except ObjectMissing as error:
        raise StoreUnavailable(
            f"{key}: the store says that it exists, and does not have it"
        ) from error


@dataclass(slots=True)
class _Frames:
    """The data frames of an image. Those that ``source`` holds come without their bytes."""

    image: Image
    limits: SnapshotLimits
    source: SnapshotBase | None
    pool: ThreadPoolExecutor
    hashes: PageHashes = field(init=False)  # of the pages read by ``all``
    step: int = field(init=False)  # pages a frame

    def __post_init__(self) -> None:
        self.hashes = PageHashes(self.image.page_size)
        self.step = max(1, self.limits.block_bytes // self.image.page_size)

    def all(self, cancelled: Callable[[], bool]) -> Iterator[tuple[int, Block]]:
        """Each with its number, from 0; every page of the image is read and hashed."""

        def begin(number: int) -> Future[Block]:
            if cancelled():
                raise Cancelled("the snapshot was given up because the replicator stops")
            data = self._read(number)
            self.hashes.extend(number * self.step + 1, data)
            return self.pool.submit(self._frame, number, data)

        numbers = range(-(-self.image.pages // self.step))
        return zip(numbers, self._overlapping(begin, numbers), strict=True)

    def again(self, numbers: list[int]) -> Iterator[bytes]:
        """The bytes of frames of the source. ``BaseUnusable`` if today's compressor, or its
        level, makes others of the same pages."""

        def begin(number: int) -> Future[Block]:
            return self.pool.submit(
                compress_block, self._read(number), self.limits.level, known.pages(number)
            )

        if not numbers:
            return
        assert self.source is not None
        known = self.source.digests
        for number, frame in zip(numbers, self._overlapping(begin, numbers), strict=True):
            if frame.sha256 != known.block(number):
                raise BaseUnusable(f"frame {number} is made in another way today")
            yield frame.data

    def _read(self, number: int) -> bytearray:
        first = number * self.step + 1
        return self.image.read(first, min(self.step, self.image.pages + 1 - first))

    def _frame(self, number: int, data: bytearray) -> Block:
        digest = hashlib.sha256(data).digest()
        found = self.source and self.source.frame(number, len(data), digest)
        return found or compress_block(data, self.limits.level, digest)

    def _overlapping(
        self, begin: Callable[[int], Future[Block]], numbers: list[int] | range
    ) -> Iterator[Block]:
        """The results in order, while a few more are being made."""
        waiting: deque[Future[Block]] = deque()
        for number in numbers:
            waiting.append(begin(number))
            if len(waiting) > 2 * self.limits.compressors:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
