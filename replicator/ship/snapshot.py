"""Snapshots: an image of the database, streamed into the store as one object.

No temporary copy and bounded memory, whatever the size: blocks of pages are read in order,
compressed by threads, and sent as parts while the next blocks are read. The object appears in
the store only when it is complete, and only after the caller's gate has opened.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from ..edge.store.base import Part, Store
from ..errors import ObjectExists, ReplicatorError
from ..format.database import PageHashes
from ..format.segment import ObjectHeader, SnapshotEncoder, Summary
from .image import Image

PART_BYTES = 8 << 20
MOST_PARTS = 9000  # S3 allows 10 000; compression may, rarely, make a snapshot grow
COMPRESSORS = 2
SENDERS = 2


class Cancelled(ReplicatorError):
    """The snapshot was given up because the replicator stops."""


def ship_snapshot(image: Image, store: Store, key: str, header: ObjectHeader, *,
                  level: int, gate: Callable[[PageHashes], None],
                  cancelled: Callable[[], bool]) -> tuple[PageHashes, Summary]:
    """Stream ``image`` to ``key``. ``gate`` is called with the image's page hashes once all
    bytes are in the store and before the object appears; it may wait, and it may raise.

    An object that stands there already is taken for ours: the key names the generation and
    the transaction, so an earlier attempt with the same content must have made it.
    """
    hashes = PageHashes(image.page_size)
    encoder = SnapshotEncoder(header)
    with _PartStream(store, key, image.pages * image.page_size) as stream:
        stream.write(encoder.start())
        _compress(image, encoder, hashes, stream, level, cancelled)
        end, summary = encoder.finish(last_txid=header.first_txid, state=hashes.state)
        stream.write(end)
        stream.flush()
        gate(hashes)
        with contextlib.suppress(ObjectExists):
            stream.publish(summary)
    return hashes, summary


def _compress(image: Image, encoder: SnapshotEncoder, hashes: PageHashes,
              stream: _PartStream, level: int, cancelled: Callable[[], bool]) -> None:
    step = max(1, SnapshotEncoder.FRAME_BYTES // image.page_size)
    waiting: deque[tuple[int, Future[bytes]]] = deque()

    def drain(least: int) -> None:
        while len(waiting) > least:
            size, compressed = waiting.popleft()
            stream.write(encoder.add(compressed.result(), size))

    with ThreadPoolExecutor(COMPRESSORS, "replicator-compress") as pool:
        for first in range(1, image.pages + 1, step):
            if cancelled():
                raise Cancelled("the snapshot was given up because the replicator stops")
            data = image.read(first, min(step, image.pages + 1 - first))
            waiting.append((len(data), pool.submit(SnapshotEncoder.compress, data, level)))
            hashes.extend(first, data)
            drain(2 * COMPRESSORS)
        drain(0)


class _PartStream:
    """Bytes in, one object out: a single PUT if it stays small, else a multipart upload."""

    def __init__(self, store: Store, key: str, most_bytes: int) -> None:
        self._store = store
        self._key = key
        self._part_bytes = max(PART_BYTES, -(-most_bytes // MOST_PARTS))
        self._buffer = bytearray()
        self._upload_id: str | None = None
        self._sent: list[Future[Part]] = []
        self._pool = ThreadPoolExecutor(SENDERS, "replicator-part")

    def write(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= self._part_bytes:
            self._send()

    def _send(self) -> None:
        """The next part. All but the last have one size: some stores accept no other."""
        if self._upload_id is None:
            self._upload_id = self._store.begin_upload(self._key)
        body = bytes(memoryview(self._buffer)[:self._part_bytes])
        del self._buffer[:self._part_bytes]
        number = len(self._sent) + 1
        self._sent.append(self._pool.submit(
            self._store.put_part, self._key, self._upload_id, number, body))
        if number > SENDERS:  # bounds what waits in memory
            self._sent[number - 1 - SENDERS].result()

    def flush(self) -> None:
        """Wait until every byte is in the store, but for an object that goes in one PUT."""
        if self._upload_id is None:
            return
        if self._buffer:
            self._send()
        for part in self._sent:
            part.result()

    def publish(self, summary: Summary) -> None:
        if self._upload_id is None:
            self._store.put(self._key, bytes(self._buffer), metadata=summary.metadata())
            return
        parts = [part.result() for part in self._sent]
        self._store.complete_upload(self._key, self._upload_id, parts)
        self._upload_id = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)
        if self._upload_id is not None:
            self._abort(self._upload_id)

    def _abort(self, upload_id: str) -> None:
        """Give the parts back. What a dead store keeps of them, its lifecycle rule removes."""
        try:
            self._store.abort_upload(self._key, upload_id)
        except ReplicatorError:
            return
