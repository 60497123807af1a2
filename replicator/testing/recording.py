"""A store that records every request, and two checks of the record.

Owns the record and the checks: no key is written twice with different bytes, and the archive grows
without a hole. Wraps the real store directly, below any injected faults, so that it records the
effect of a request and not the answer that the caller received. Refuses to change a request.
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
MUTABLE = "metadata.json"  # for users; the only object that is rewritten


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """One call. ``error`` is the class of its error, None if it took effect."""

    call: str
    key: str
    error: type[ReplicatorError] | None


@dataclass(frozen=True, slots=True)
class Write:
    """One object that was created, with its metadata."""

    key: str
    size: int
    sha256: str
    metadata: Metadata


class RecordingStore(StoreWrapper):
    """``store``, with ``requests`` in the order of their ends, and ``writes`` in the order of
    their effects."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._lock = threading.Lock()
        self._announced: dict[str, Metadata] = {}
        self.requests: list[RecordedCall] = []
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
                self.requests.append(RecordedCall(call, key, error))

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
        """The number of requests, or of those with the given names."""
        with self._lock:
            return sum(1 for request in self.requests if not calls or request.call in calls)

    def check(self) -> None:
        """``AssertionError`` unless each key kept its bytes and the archive has no hole."""
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
    """Check that the segments under one ``…/wal/`` follow one another without a gap, in the order
    of their effects. The first one may have any txid."""
    heads: dict[str, int] = {}
    for write in writes:
        folder, _, _ = write.key.rpartition("/")
        if folder != "wal" and not folder.endswith("/wal"):
            continue
        first, last = int(write.metadata["first-txid"]), int(write.metadata["last-txid"])
        if first != heads.get(folder, first - 1) + 1:
            raise AssertionError(f"{write.key} begins at txid {first}, after {heads[folder]}")
        heads[folder] = last
