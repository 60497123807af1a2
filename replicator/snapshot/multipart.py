"""Bytes and frames in, one object out: a single PUT if it stays small, else a multipart upload.

All parts but the last have one size: some stores accept no other. A part that lies wholly
within frames that the store has already, in the snapshot before, is copied inside the store;
whatever part of a frame is needed beside that is made again, and must be the same bytes. An
upload that a crash interrupted goes on where the store says it is.
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
from replicator.snapshot.resume import Begun, Unfinished
from replicator.store.base import Part, Store

log = logging.getLogger(__name__)

Bring: TypeAlias = Callable[[list[int]], Iterator[bytes]]  # the bytes of frames, by number


class Differs(ReplicatorError):
    """What the store holds of an upload is not of this image: it cannot be gone on with."""

    code = "upload_differs"


@dataclass(slots=True)
class Piece:
    """Neighbouring bytes of the object. ``data`` is None while they are only in the store, as
    a frame of the source, which begins there at ``at`` and has the ``number``."""

    size: int
    data: bytes | None
    number: int = -1
    at: int = -1


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bytes ``start … stop`` of a piece, which belong to one part."""

    piece: Piece
    start: int
    stop: int


def cut(pieces: deque[Piece], begun: int, size: int) -> tuple[list[Stretch], int]:
    """The next part: takes ``size`` bytes off the front of ``pieces``, of whose first one
    ``begun`` bytes are gone already. Returns the part and that number for the next."""
    part: list[Stretch] = []
    while size:
        piece = pieces[0]
        stop = min(piece.size, begun + size)
        part.append(Stretch(piece, begun, stop))
        size -= stop - begun
        begun = stop
        if stop == piece.size:
            pieces.popleft()
            begun = 0
    return part, begun


def copied_from(part: list[Stretch]) -> int | None:
    """Where the part lies in the source, in one stretch; None if it does not."""
    first = part[0]
    expected = start = first.piece.at + first.start
    for stretch in part:
        if stretch.piece.at < 0 or stretch.piece.at + stretch.start != expected:
            return None
        expected += stretch.stop - stretch.start
    return start


class PartStream:
    """Write what comes, in order; flush; publish. ``bring`` makes frames again."""

    def __init__(
        self,
        store: Store,
        begun: Begun,
        unfinished: Unfinished,
        source: SnapshotBase | None,
        bring: Bring,
        *,
        senders: int = 2,
    ) -> None:
        self._store = store
        self._unfinished = unfinished
        self._source = source
        self._bring = bring
        known = unfinished.find(begun.txid, begun.generation)
        self._upload = begun if known is None or known.key != begun.key else known
        self._resumed = self._upload is known
        self._pieces: deque[Piece] = deque()
        self._begun = 0  # bytes of the first piece that are in a part already
        self._held = 0  # bytes that are in no part yet
        self._present: dict[int, Part] = {}  # what the store confirms of an earlier attempt
        self._sent: list[Future[Part]] = []
        self._copies: list[int] = []  # their numbers
        self._senders = senders
        self._pool = ThreadPoolExecutor(senders, "replicator-part")

    @property
    def copied_bytes(self) -> int:
        return len(self._copies) * self._upload.part_bytes

    def write(self, data: bytes) -> None:
        self._add(Piece(len(data), data))

    def refer(self, number: int, size: int) -> None:
        """The next bytes are those of frame ``number`` of the source."""
        assert self._source is not None
        self._add(Piece(size, None, number, self._source.entries[number].offset))

    def _add(self, piece: Piece) -> None:
        self._pieces.append(piece)
        self._held += piece.size
        while self._held >= self._upload.part_bytes:
            self._send(self._upload.part_bytes)

    def _send(self, size: int) -> None:
        """The next part."""
        if not self._sent:
            self._begin()
        part, self._begun = cut(self._pieces, self._begun, size)
        self._held -= size
        number = len(self._sent) + 1
        at = copied_from(part)
        if at is None:
            body = self._body(part)
            self._sent.append(
                self._known(number, body)
                or self._pool.submit(
                    self._store.put_part, self._upload.key, self._upload.upload_id, number, body
                )
            )
        else:
            self._present.pop(number, None)  # what it holds cannot be told from here
            self._copies.append(number)
            self._sent.append(self._pool.submit(self._copy, number, at, size))
        if number > self._senders:  # bounds what waits in memory
            self._sent[number - 1 - self._senders].result()

    def _body(self, part: list[Stretch]) -> bytes:
        self._fill([stretch.piece for stretch in part])
        return b"".join(
            memoryview(stretch.piece.data or b"")[stretch.start : stretch.stop] for stretch in part
        )

    def _fill(self, pieces: list[Piece]) -> None:
        """Make again what is only in the store."""
        missing = [piece for piece in pieces if piece.data is None]
        for piece, data in zip(missing, self._bring([p.number for p in missing]), strict=True):
            piece.data = data

    def _copy(self, number: int, at: int, size: int) -> Part:
        assert self._source is not None
        try:
            return self._store.copy_part(
                self._upload.key, self._upload.upload_id, number, self._source.info, at, size
            )
        except (ObjectMissing, StoreUnavailable) as error:
            raise BaseUnusable(f"part {number} could not be copied: {error}") from error
        except AccessDenied as error:  # to copy; whether all is denied, sending will tell
            raise CopyRefused(str(error)) from error

    def _begin(self) -> None:
        if self._resumed:
            try:
                parts = self._store.list_parts(self._upload.key, self._upload.upload_id)
            except UploadMissing as error:
                raise Differs("the store gave up the upload") from error
            self._present = {part.number: part for part in parts}
            log.info(
                "going on with the upload of %s: %d parts are there", self._upload.key, len(parts)
            )
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
            self._fill(list(self._pieces))
            return
        if self._held:
            self._send(self._held)
        if self._present:
            raise Differs(f"the store has {len(self._present)} parts too many")
        for part in self._sent:
            part.result()
        if self._copies:
            self._confirm()

    def _confirm(self) -> None:
        """A store that passes over the range, or the source, made a part of another size.
        SeaweedFS may keep one of an earlier attempt beside it, and lists neither then."""
        sizes = {
            part.number: part.size
            for part in self._store.list_parts(self._upload.key, self._upload.upload_id)
        }
        if any(sizes.get(number) != self._upload.part_bytes for number in self._copies):
            raise (Differs if self._resumed else CopyRefused)(
                f"{self._upload.key}: a copied part is not the one that was asked for"
            )

    def publish(self, summary: Summary) -> None:
        if not self._sent:
            body = b"".join(piece.data or b"" for piece in self._pieces)
            self._store.put(self._upload.key, body, metadata=summary.metadata())
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """An upload that was interrupted can be gone on with; any other failure ends it."""
        self._pool.shutdown(cancel_futures=True)
        if error is not None and not isinstance(error, (Cancelled, StoreUnavailable)):
            self._unfinished.give_up()
        if isinstance(error, UploadMissing):
            raise StoreUnavailable(
                f"{self._upload.key}: the store gave up the upload before its end"
            ) from error
