"""Trying again: which failures are worth it, how long to wait, and what a lost answer means.

Owns the back-off (full jitter) and :class:`RetryingStore`, which repeats transient failures
until a deadline. Refuses to repeat a refusal or an answer. Time, sleep and chance are passed
in, so that it is the same in a test as in a storm.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from replicator.edge.store.base import (
    Folders,
    Metadata,
    ObjectInfo,
    Part,
    Parts,
    Store,
    Uploads,
)
from replicator.errors import ObjectExists, ObjectMissing, StoreUnavailable, UploadMissing

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Seconds: the first wait, the longest one, and how long to go on (None: for ever)."""

    first: float = 0.1
    cap: float = 10.0
    deadline: float | None = None


def backoff(attempt: int, policy: RetryPolicy, chance: Callable[[], float]) -> float:
    """Seconds to wait after the ``attempt``-th failure (from 1): full jitter below a bound
    that doubles. ``chance`` gives numbers in [0, 1)."""
    bound: float = min(policy.cap, policy.first * 2 ** min(attempt - 1, 32))
    return bound * chance()


@dataclass(frozen=True, slots=True)
class Clock:
    """What retrying needs of the world."""

    now: Callable[[], float] = field(default=time.monotonic)
    sleep: Callable[[float], None] = field(default=time.sleep)
    chance: Callable[[], float] = field(default=random.random)


class RetryingStore(Store):
    """``store``, with transient failures repeated. Closing it closes ``store``."""

    def __init__(self, store: Store, policy: RetryPolicy, clock: Clock | None = None) -> None:
        self.url = store.url
        self._store = store
        self._policy = policy
        self._clock = clock or Clock()

    def _retry(self, call: Callable[[bool], T]) -> T:
        """Call until it answers; ``call`` is told whether an earlier attempt failed, whose
        effect is unknown. Raises the last ``StoreUnavailable`` when the time is over."""
        began = self._clock.now()
        attempt = 0
        while True:
            try:
                return call(attempt > 0)
            except StoreUnavailable:
                attempt += 1
                pause = backoff(attempt, self._policy, self._clock.chance)
                spent = self._clock.now() - began + pause
                if self._policy.deadline is not None and spent > self._policy.deadline:
                    raise
                self._clock.sleep(pause)

    def put(self, key: str, body: bytes, *, metadata: Metadata | None = None,
            if_absent: bool = True) -> None:
        def call(doubt: bool) -> None:
            try:
                self._store.put(key, body, metadata=metadata, if_absent=if_absent)
            except ObjectExists:
                if not (doubt and self._holds(key, hashlib.sha256(body).hexdigest())):
                    raise

        self._retry(call)

    def _holds(self, key: str, digest: str) -> bool:
        """Whether the object that stands in our way is the one we sent, its answer lost."""
        try:
            return hashlib.sha256(self._store.get(key)).hexdigest() == digest
        except ObjectMissing:
            return False

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        return self._retry(lambda _: self._store.get(key, start, length))

    def head(self, key: str) -> ObjectInfo:
        return self._retry(lambda _: self._store.head(key))

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        """A page that fails is asked for again from the last key that came."""
        last = start_after
        while True:
            page = self._store.list(prefix, start_after=last)
            try:
                for info in page:
                    last = info.key
                    yield info
            except StoreUnavailable:
                more = self._retry(lambda _: self._peek(prefix, last))
                if more is None:
                    return
            else:
                return

    def _peek(self, prefix: str, after: str) -> ObjectInfo | None:
        """The next object, once the store lists again."""
        return next(self._store.list(prefix, start_after=after), None)

    def folders(self, prefix: str) -> Folders:
        return self._retry(lambda _: self._store.folders(prefix))

    def delete(self, key: str) -> None:
        self._retry(lambda _: self._store.delete(key))

    def begin_upload(self, key: str, *, metadata: Metadata | None = None) -> str:
        return self._retry(lambda _: self._store.begin_upload(key, metadata=metadata))

    def put_part(self, key: str, upload_id: str, number: int, body: bytes) -> Part:
        return self._retry(lambda _: self._store.put_part(key, upload_id, number, body))

    def list_parts(self, key: str, upload_id: str) -> Parts:
        return self._retry(lambda _: self._store.list_parts(key, upload_id))

    def complete_upload(self, key: str, upload_id: str, parts: Parts, *,
                        if_absent: bool = True) -> None:
        def call(doubt: bool) -> None:
            try:
                self._store.complete_upload(key, upload_id, parts, if_absent=if_absent)
            except (ObjectExists, UploadMissing):
                if not (doubt and self._size_of(key) == sum(part.size for part in parts)):
                    raise

        self._retry(call)

    def _size_of(self, key: str) -> int | None:
        try:
            return self._store.head(key).size
        except ObjectMissing:
            return None

    def abort_upload(self, key: str, upload_id: str) -> None:
        self._retry(lambda _: self._store.abort_upload(key, upload_id))

    def list_uploads(self, prefix: str) -> Uploads:
        return self._retry(lambda _: self._store.list_uploads(prefix))

    def close(self) -> None:
        self._store.close()
