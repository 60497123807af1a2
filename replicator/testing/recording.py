"""A store that remembers every request, and the oracle that reads the record.

Owns the record and two properties of it: no key is written twice with different bytes, and
the log grows without a hole. Belongs directly around the real store, below any faults, so
that it sees what took effect and not what the caller was told.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from replicator.errors import ReplicatorError
from replicator.store.base import Metadata, Parts, Store
from replicator.store.wrapper import StoreWrapper

T = TypeVar("T")
MUTABLE = "metadata.json"  # for people; the one object that is written again


@dataclass(frozen=True, slots=True)
class Request:
    """One call: ``error`` is the class of what it raised, None when it took effect."""

    call: str
    key: str
    error: type[ReplicatorError] | None


@dataclass(frozen=True, slots=True)
class Write:
    """One object that came into being, with the facts its metadata told."""

    key: str
    size: int
    sha256: str
    metadata: Metadata


class RecordingStore(StoreWrapper):
    """``store``, with ``requests`` in the order they ended and ``writes`` as they took
    effect."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._lock = threading.Lock()
        self._announced: dict[str, Metadata] = {}
        self.requests: list[Request] = []
        self.writes: list[Write] = []

    def around(self, call: str, key: str, proceed: Callable[[], T]) -> T:
        error: type[ReplicatorError] | None = None
        try:
            return proceed()
        except ReplicatorError as raised:
            error = type(raised)
            raise
        finally:
            with self._lock:
                self.requests.append(Request(call, key, error))

    def put(
        self, key: str, body: bytes, *, metadata: Metadata | None = None, if_absent: bool = True
    ) -> None:
        super().put(key, body, metadata=metadata, if_absent=if_absent)
        self._wrote(key, body, metadata or {})

    def begin_upload(self, key: str, *, metadata: Metadata | None = None) -> str:
        upload_id = super().begin_upload(key, metadata=metadata)
        self._announced[upload_id] = metadata or {}
        return upload_id

    def complete_upload(
        self, key: str, upload_id: str, parts: Parts, *, if_absent: bool = True
    ) -> None:
        super().complete_upload(key, upload_id, parts, if_absent=if_absent)
        self._wrote(key, self.inner.get(key), self._announced.get(upload_id, {}))

    def _wrote(self, key: str, body: bytes, metadata: Metadata) -> None:
        with self._lock:
            self.writes.append(
                Write(key, len(body), hashlib.sha256(body).hexdigest(), dict(metadata))
            )

    def count(self, *calls: str) -> int:
        """How many requests there were; all of them, or those of the given names."""
        with self._lock:
            return sum(1 for request in self.requests if not calls or request.call in calls)

    def check(self) -> None:
        """``AssertionError`` unless each key kept its bytes and the log has no hole."""
        with self._lock:
            writes = [write for write in self.writes if not write.key.endswith(MUTABLE)]
        _check_written_once(writes)
        _check_log(writes)


def _check_written_once(writes: list[Write]) -> None:
    seen: dict[str, str] = {}
    for write in writes:
        if seen.setdefault(write.key, write.sha256) != write.sha256:
            raise AssertionError(f"{write.key} was written twice with different bytes")


def _check_log(writes: list[Write]) -> None:
    """Appends under one ``…/wal/`` follow one another without a gap, in the order in which
    they took effect; where the record begins, the log may begin."""
    heads: dict[str, int] = {}
    for write in writes:
        folder, _, _ = write.key.rpartition("/")
        if folder != "wal" and not folder.endswith("/wal"):
            continue
        first, last = int(write.metadata["first-txid"]), int(write.metadata["last-txid"])
        if first != heads.get(folder, first - 1) + 1:
            raise AssertionError(f"{write.key} begins at txid {first} behind {heads[folder]}")
        heads[folder] = last
