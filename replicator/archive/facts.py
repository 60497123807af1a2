"""The facts of one object: kind, generation, transactions, checksums, times.

Owns the two sources and their rank. The metadata that the store keeps with an object costs one
HEAD and is a hint: it shows where to look. The object's own first and last bytes are the proof.
Metadata that does not fit the object's name counts as absent. Refuses to read the payload, except
that the SHA-256 of an object which came whole with its tail is compared.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace
from functools import partial
from typing import TypeVar, cast

from replicator.archive.index import SEGMENTS, ArchiveObject, SnapshotObject, WalObject
from replicator.format.envelope import (
    HEADER_LIMIT,
    TAIL_LIMIT,
    Tail,
    damaged,
    read_header,
    read_tail,
)
from replicator.format.object_header import ObjectFacts, ObjectHeader, parse_metadata
from replicator.model import Kind
from replicator.store.base import ObjectInfo, Store
from replicator.store.retry import retry_damaged

T = TypeVar("T", bound=ArchiveObject)


TAILS_BYTES = 64 << 20  # of the tails that a reader keeps


class FactsReader:
    """Asks objects of one store. Keeps the tails it read last, up to ``tails_bytes``; safe to
    share between threads."""

    def __init__(self, store: Store, *, tails_bytes: int = TAILS_BYTES) -> None:
        self._store = store
        self._most = tails_bytes
        self._tails: dict[str, Tail] = {}
        self._kept = 0
        self.sealed = False  # an object that was read has a seal
        self._lock = threading.Lock()

    def ask(self, item: T) -> T:
        """The object with its facts: by its metadata, else proved. One HEAD, seldom more.

        ``ObjectMissing`` when it is gone, else as :meth:`prove`.
        """
        found = None if self._store.integrity else self.metadata(item)  # metadata has no seal
        if found is None or not fits(item, found):
            return self.prove(item)
        return cast("T", item.with_facts(found))

    def metadata(self, item: ArchiveObject) -> ObjectFacts | None:
        """The facts in the store's metadata, whether or not they fit the name. One HEAD."""
        return parse_metadata(self._store.head(item.key).metadata)

    def current(self, item: ArchiveObject) -> tuple[ObjectInfo, ObjectFacts]:
        """The store's present answer about the object, by one HEAD, and the facts in its
        metadata, whether or not they fit the name; in its own bytes where there is none."""
        info = self._store.head(item.key)
        found = None if self._store.integrity else parse_metadata(info.metadata)
        return info, self.read(replace(item, size=info.size)) if found is None else found

    def prove(self, item: T) -> T:
        """The object with the facts in its own bytes; ``DamageError`` when they are damaged, or
        are not those of an object with that name."""
        found = self.read(item)
        require_fit(item, found)
        return cast("T", item.with_facts(found, proved=True))

    def read(self, item: ArchiveObject) -> ObjectFacts:
        """The facts in the object's own bytes, whether or not they fit the name. One GET for an
        object of up to TAIL_LIMIT bytes, else one for each end."""
        return retry_damaged(partial(self._read, item))

    def _read(self, item: ArchiveObject) -> ObjectFacts:
        whole = item.size <= TAIL_LIMIT
        start = self._store.get(item.key, 0, item.size if whole else HEADER_LIMIT)
        header, _ = read_header(start[:HEADER_LIMIT], item.key)
        tail = self._tail_of(item, start) if whole else self.tail(item)
        if tail.kind is not header.kind or tail.trailer.last_txid < header.first_txid:
            raise damaged(item.key, "its trailer contradicts its header", code="contradiction")
        return ObjectFacts.of(header, tail.trailer)

    def _tail_of(self, item: ArchiveObject, data: bytes) -> Tail:
        if len(data) != item.size:
            raise damaged(item.key, "its length differs from its listing", code="truncated")
        tail = read_tail(data, item.size, item.key, self._store.integrity)
        assert isinstance(tail, Tail)  # ``data`` is all there is
        trailer = tail.trailer
        if (
            trailer.blocks is None  # else the sum is of the header and of the blocks' digests
            and hashlib.sha256(data[: tail.trailer_offset]).digest() != trailer.data_sha256
        ):
            raise damaged(
                item.key, "the SHA-256 of its data does not match", code="checksum_mismatch"
            )
        return self._keep(item.key, tail)

    def tail(self, item: ArchiveObject) -> Tail:
        """Trailer and seek table, in one request except for very large snapshots."""
        found = self._tails.get(item.key)
        if found is not None:
            return found
        return self._keep(
            item.key, retry_damaged(partial(tail_of, self._store, item.key, item.size))
        )

    def _keep(self, key: str, tail: Tail) -> Tail:
        with self._lock:
            self.sealed = self.sealed or tail.sealed
            if key not in self._tails:
                self._tails[key] = tail
                self._kept += tail.nbytes
            while self._kept > self._most and len(self._tails) > 1:
                oldest = next(iter(self._tails))
                self._kept -= self._tails.pop(oldest).nbytes
        return tail


def tail_of(store: Store, key: str, size: int, *, ask: int = TAIL_LIMIT) -> Tail:
    """The tail of an object of ``size`` bytes: asks for the last ``ask`` bytes, and for more as
    long as these name more."""
    wanted: Tail | int = ask
    while isinstance(wanted, int):
        length = min(size, wanted)
        data = store.get(key, size - length, length)
        if len(data) < length:
            raise damaged(key, "it is shorter than its listing", code="truncated")
        wanted = read_tail(data, size, key, store.integrity)
    return wanted


def header_of(store: Store, key: str) -> ObjectHeader:
    """The header of an object. One GET."""
    return read_header(store.get(key, 0, HEADER_LIMIT), key)[0]


def fits(item: ArchiveObject, facts: ObjectFacts) -> bool:
    """True if the facts are those of an object with that name."""
    if isinstance(item, SnapshotObject):
        return (
            facts.kind is Kind.SNAPSHOT
            and facts.generation == item.generation
            and facts.last_txid == item.txid == facts.first_txid
        )
    return (
        facts.kind is not Kind.SNAPSHOT
        and facts.first_txid == item.first <= facts.last_txid
        and (item.level == SEGMENTS or facts.last_txid == item.last)
    )


def require_tail_fits(item: ArchiveObject, tail: Tail) -> None:
    """``DamageError`` if the trailer alone shows that the object does not match its name."""
    last = tail.trailer.last_txid
    snapshot = isinstance(item, SnapshotObject)
    ends = last == item.last or (isinstance(item, WalObject) and item.level == SEGMENTS)
    if (tail.kind is Kind.SNAPSHOT) != snapshot or not ends or last < item.first:
        kind = tail.kind.name.lower().replace("_", "-")
        raise damaged(
            item.key,
            f"it does not match its name: it is a {kind} up to transaction {last}",
            code="other_object",
        )


def require_fit(item: ArchiveObject, facts: ObjectFacts) -> None:
    """``DamageError`` if the object does not match its name."""
    if not fits(item, facts):
        raise damaged(
            item.key,
            f"it does not match its name: it is a {facts.kind.name.lower().replace('_', '-')} of "
            f"transactions {facts.first_txid}…{facts.last_txid}",
            code="other_object",
        )
