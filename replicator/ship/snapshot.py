"""Snapshots: an image of the database, streamed into the store as one object.

No temporary copy and bounded memory, whatever the size: blocks of pages are read in order,
compressed by threads, and sent as parts while the next blocks are read. The object appears in
the store only when it is complete, and only after the caller's gate has opened. An upload that
a crash interrupted goes on where the store says it is, if the image is still the same.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Self

from ..edge.store.base import Part, Store
from ..errors import ObjectExists, ObjectMissing, ReplicatorError, StoreUnavailable, UploadMissing
from ..format.database import PageHashes
from ..format.segment import ObjectHeader, SnapshotEncoder, Summary
from .image import Image
from .unfinished import Begun, Unfinished

PART_BYTES = 8 << 20
MOST_PARTS = 9000  # S3 allows 10 000; compression may, rarely, make a snapshot grow
COMPRESSORS = 2
SENDERS = 2

log = logging.getLogger("replicator.snapshot")


class Cancelled(ReplicatorError):
    """The snapshot was given up because the replicator stops."""


class Differs(ReplicatorError):
    """What the store holds of an upload is not of this image: it cannot be gone on with."""


def ship_snapshot(image: Image, store: Store, header: ObjectHeader, key: str,
                  unfinished: Unfinished, *, level: int, gate: Callable[[PageHashes], None],
                  cancelled: Callable[[], bool]) -> tuple[PageHashes, Summary]:
    """Stream ``image`` to ``key``. ``gate`` is called with the image's page hashes once all
    bytes are in the store and before the object appears; it may wait, and it may raise.

    An upload that ``unfinished`` knows is gone on with: parts that the store confirms are not
    sent again. ``Differs`` when one of them holds other bytes; then the upload was given up.

    An object that stands there already is taken for ours: the key names the generation and
    the transaction, so an earlier attempt with the same content must have made it.
    """
    hashes = PageHashes(image.page_size)
    encoder = SnapshotEncoder(header)
    begun = Begun(key, "", max(PART_BYTES, -(-image.pages * image.page_size // MOST_PARTS)),
                  header.generation, header.first_txid, header.created_ms)
    with _PartStream(store, begun, unfinished) as stream:
        stream.write(encoder.start())
        _compress(image, encoder, hashes, stream, level, cancelled)
        end, summary = encoder.finish(last_txid=header.first_txid, state=hashes.state)
        stream.write(end)
        stream.flush()
        gate(hashes)
        try:
            stream.publish(summary)
        except ObjectExists:
            _require_there(store, key)
    return hashes, summary


def _require_there(store: Store, key: str) -> None:
    """A marker is going to vouch for the object, so "it exists" is not taken on trust."""
    try:
        store.head(key)
    except ObjectMissing as error:
        raise StoreUnavailable(f"{key}: the store says that it exists, and does not have it"
                               ) from error


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

    def __init__(self, store: Store, begun: Begun, unfinished: Unfinished) -> None:
        self._store = store
        self._unfinished = unfinished
        known = unfinished.find(begun.txid, begun.generation)
        self._upload = begun if known is None or known.key != begun.key else known
        self._buffer = bytearray()
        self._present: dict[int, Part] = {}  # what the store confirms of an earlier attempt
        self._sent: list[Future[Part]] = []
        self._pool = ThreadPoolExecutor(SENDERS, "replicator-part")

    def write(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= self._upload.part_bytes:
            self._send()

    def _send(self) -> None:
        """The next part. All but the last have one size: some stores accept no other."""
        if not self._sent:
            self._begin()
        body = bytes(memoryview(self._buffer)[:self._upload.part_bytes])
        del self._buffer[:self._upload.part_bytes]
        number = len(self._sent) + 1
        self._sent.append(self._known(number, body) or self._pool.submit(
            self._store.put_part, self._upload.key, self._upload.upload_id, number, body))
        if number > SENDERS:  # bounds what waits in memory
            self._sent[number - 1 - SENDERS].result()

    def _begin(self) -> None:
        if self._upload.upload_id:
            try:
                parts = self._store.list_parts(self._upload.key, self._upload.upload_id)
            except UploadMissing as error:
                raise Differs("the store gave up the upload") from error
            self._present = {part.number: part for part in parts}
            log.info("going on with the upload of %s: %d parts are there",
                     self._upload.key, len(parts))
        else:
            upload_id = self._store.begin_upload(self._upload.key)
            self._upload = replace(self._upload, upload_id=upload_id)
            self._unfinished.note(self._upload)

    def _known(self, number: int, body: bytes) -> Future[Part] | None:
        """The part, if the store has it already. Its ETag is the MD5 of its bytes with every
        store that does not encrypt with a key of the user's; with those, ``Differs``."""
        part = self._present.pop(number, None)
        if part is None:
            return None
        if part.etag.strip('"') != hashlib.md5(body, usedforsecurity=False).hexdigest():
            raise Differs(f"part {number} of {self._upload.key} is of another state")
        found: Future[Part] = Future()
        found.set_result(part)
        return found

    def flush(self) -> None:
        """Wait until every byte is in the store, but for an object that goes in one PUT."""
        if not self._sent:
            return
        if self._buffer:
            self._send()
        if self._present:
            raise Differs(f"the store has {len(self._present)} parts too many")
        for part in self._sent:
            part.result()

    def publish(self, summary: Summary) -> None:
        if not self._sent:
            self._store.put(self._upload.key, bytes(self._buffer), metadata=summary.metadata())
            self._unfinished.give_up()  # of a time when the database was larger
            return
        parts = [part.result() for part in self._sent]
        try:
            self._store.complete_upload(self._upload.key, self._upload.upload_id, parts)
        except ObjectExists:
            self._unfinished.give_up()
            raise
        self._unfinished.forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """An upload that was interrupted can be gone on with; any other failure ends it."""
        self._pool.shutdown(cancel_futures=True)
        if error is not None and not isinstance(error, (Cancelled, StoreUnavailable)):
            self._unfinished.give_up()
        if isinstance(error, UploadMissing):
            raise StoreUnavailable(f"{self._upload.key}: the store gave up the upload before "
                                   "its end") from error
