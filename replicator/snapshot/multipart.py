"""Bytes and blocks in, one object out: a single PUT if it stays small, else a multipart upload.

All parts but the last have one size, because some stores accept no other. A part that consists of
blocks which the store has already, in the base, is copied inside the store. The rest of a block
that is copied in part is made again, and must be the same bytes. An upload that a crash
interrupted resumes with the parts that the store confirms.

Owns: the parts, in memory and in the store. Refuses: to publish before the caller asks.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self, TypeAlias

from replicator.errors import (
    AccessDenied,
    Cancelled,
    CopyRefused,
    ObjectExists,
    ObjectMissing,
    ReplicatorError,
    StoreUnavailable,
    UploadMissing,
)
from replicator.format.object_header import Summary
from replicator.snapshot.base import BaseUnusable, SnapshotBase
from replicator.snapshot.resume import SnapshotUpload, UploadJournal
from replicator.store.base import Part, Store

log = logging.getLogger(__name__)

Remake: TypeAlias = Callable[[list[int]], Iterator[bytes]]  # the bytes of blocks, by number


class UploadDiffers(ReplicatorError):
    """The parts in the store are not of this image: the upload cannot be resumed."""

    code = "upload_differs"


@dataclass(slots=True)
class ObjectPiece:
    """Neighbouring bytes of the object. ``data`` is None while only the store has them, as block
    ``number`` of the base, which begins at offset ``at`` there."""

    size: int
    data: bytes | None
    number: int = -1
    at: int = -1


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bytes ``start … stop`` of a piece, which belong to one part."""

    piece: ObjectPiece
    start: int
    stop: int


def cut(pieces: deque[ObjectPiece], used: int, size: int) -> tuple[list[Stretch], int]:
    """The next part: takes ``size`` bytes off the front of ``pieces``; the part before took
    ``used`` bytes of the first piece. Returns the part, and that number for the next one."""
    part: list[Stretch] = []
    while size:
        piece = pieces[0]
        stop = min(piece.size, used + size)
        part.append(Stretch(piece, used, stop))
        size -= stop - used
        used = stop
        if stop == piece.size:
            pieces.popleft()
            used = 0
    return part, used


def copied_from(part: list[Stretch]) -> int | None:
    """The offset of the part in the base; None unless the base has it in one stretch."""
    first = part[0]
    expected = start = first.piece.at + first.start
    for stretch in part:
        if stretch.piece.at < 0 or stretch.piece.at + stretch.start != expected:
            return None
        expected += stretch.stop - stretch.start
    return start


class PartStream:
    """Write in order; flush; publish. ``remake`` makes blocks of the base again."""

    def __init__(
        self,
        store: Store,
        upload: SnapshotUpload,
        journal: UploadJournal,
        base: SnapshotBase | None,
        remake: Remake,
        *,
        senders: int,
    ) -> None:
        """``senders`` threads send parts."""
        self._store = store
        self._journal = journal
        self._base = base
        self._remake = remake
        known = journal.find(upload.txid, upload.generation)
        self._upload = upload if known is None or known.key != upload.key else known
        self._resumed = self._upload is known
        self._pieces: deque[ObjectPiece] = deque()
        self._used = 0  # bytes of the first piece that are in a part already
        self._held = 0  # bytes that are in no part yet
        self._present: dict[int, Part] = {}  # parts of an earlier attempt that the store confirms
        self._sent: list[Future[Part]] = []
        self._copies: list[int] = []  # numbers of the copied parts
        self._senders = senders
        self._pool = ThreadPoolExecutor(senders, "replicator-part")

    @property
    def copied_bytes(self) -> int:
        return len(self._copies) * self._upload.part_bytes

    def write(self, data: bytes) -> None:
        self._add(ObjectPiece(len(data), data))

    def refer(self, number: int, size: int) -> None:
        """The next bytes are those of block ``number`` of the base."""
        assert self._base is not None
        self._add(ObjectPiece(size, None, number, self._base.entries[number].offset))

    def _add(self, piece: ObjectPiece) -> None:
        self._pieces.append(piece)
        self._held += piece.size
        while self._held >= self._upload.part_bytes:
            self._send(self._upload.part_bytes)

    def _send(self, size: int) -> None:
        """Sends or copies the next part."""
        if not self._sent:
            self._begin()
        part, self._used = cut(self._pieces, self._used, size)
        self._held -= size
        number = len(self._sent) + 1
        at = copied_from(part)
        if at is None:
            body = self._body(part)
            self._sent.append(
                self._confirmed(number, body)
                or self._pool.submit(
                    self._store.put_part, self._upload.key, self._upload.upload_id, number, body
                )
            )
        else:
            self._present.pop(number, None)  # its ETag proves nothing about a copy
            self._copies.append(number)
            self._sent.append(self._pool.submit(self._copy, number, at, size))
        if number > self._senders:  # bounds the parts in memory
            self._sent[number - 1 - self._senders].result()

    def _body(self, part: list[Stretch]) -> bytes:
        self._fill([stretch.piece for stretch in part])
        return b"".join(
            memoryview(stretch.piece.data or b"")[stretch.start : stretch.stop] for stretch in part
        )

    def _fill(self, pieces: list[ObjectPiece]) -> None:
        """Makes the pieces again that only the store has."""
        missing = [piece for piece in pieces if piece.data is None]
        for piece, data in zip(missing, self._remake([p.number for p in missing]), strict=True):
            piece.data = data

    def _copy(self, number: int, at: int, size: int) -> Part:
        assert self._base is not None
        try:
            return self._store.copy_part(
                self._upload.key, self._upload.upload_id, number, self._base.info, at, size
            )
        except (ObjectMissing, StoreUnavailable) as error:
            raise BaseUnusable(f"part {number} could not be copied: {error}") from error
        except AccessDenied as error:  # to copy; sending shows whether everything is denied
            raise CopyRefused(str(error)) from error

    def _begin(self) -> None:
        if self._resumed:
            try:
                parts = self._store.list_parts(self._upload.key, self._upload.upload_id)
            except UploadMissing as error:
                raise UploadDiffers("the store discarded the upload") from error
            self._present = {part.number: part for part in parts}
            log.info("resuming the upload of %s: %d parts are there", self._upload.key, len(parts))
        else:
            upload_id = self._store.begin_upload(self._upload.key)
            self._upload = replace(self._upload, upload_id=upload_id)
            self._journal.record(self._upload)

    def _confirmed(self, number: int, body: bytes) -> Future[Part] | None:
        """The part, if the store has it already. Its ETag is the MD5 of its bytes in every store
        that does not encrypt with a key of the user's; in those, ``UploadDiffers``."""
        part = self._present.pop(number, None)
        if part is None:
            return None
        if part.etag.strip('"') != hashlib.md5(body, usedforsecurity=False).hexdigest():
            raise UploadDiffers(f"part {number} of {self._upload.key} is of another state")
        confirmed: Future[Part] = Future()
        confirmed.set_result(part)
        return confirmed

    def flush(self) -> None:
        """Waits until the store has every byte, except of an object that goes in one PUT."""
        if not self._sent:
            self._fill(list(self._pieces))
            return
        if self._held:
            self._send(self._held)
        if self._present:
            raise UploadDiffers(f"the store has {len(self._present)} parts too many")
        for part in self._sent:
            part.result()
        if self._copies:
            self._check_copies()

    def _check_copies(self) -> None:
        """A store that ignores the range, or the base, made a part of another size. SeaweedFS may
        keep a part of an earlier attempt in addition, and lists neither then."""
        sizes = {
            part.number: part.size
            for part in self._store.list_parts(self._upload.key, self._upload.upload_id)
        }
        if any(sizes.get(number) != self._upload.part_bytes for number in self._copies):
            raise (UploadDiffers if self._resumed else CopyRefused)(
                f"{self._upload.key}: a copied part is not the requested one"
            )

    def publish(self, summary: Summary) -> None:
        if not self._sent:
            body = b"".join(piece.data or b"" for piece in self._pieces)
            self._store.put(self._upload.key, body, metadata=summary.metadata())
            self._journal.abort()  # an upload from a time when the database was larger
            return
        parts = [part.result() for part in self._sent]
        try:
            self._store.complete_upload(self._upload.key, self._upload.upload_id, parts)
        except ObjectExists:
            self._journal.abort()
            raise
        self._journal.forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """An interrupted upload can be resumed; any other failure ends it."""
        self._pool.shutdown(cancel_futures=True)
        if error is not None and not isinstance(error, (Cancelled, StoreUnavailable)):
            self._journal.abort()
        if isinstance(error, UploadMissing):
            raise StoreUnavailable(
                f"{self._upload.key}: the store discarded the upload before its end"
            ) from error
