"""Retries: which failures to repeat, how long to wait, and how to treat a lost answer.

Owns the back-off (full jitter), the policy of every kind of work, and :class:`RetryingStore`, which
repeats transient failures until a deadline. Refuses to repeat a refusal or an answer. Time, sleep
and randomness are arguments, so that tests are deterministic.
"""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from replicator.errors import (
    ObjectExists,
    ObjectMissing,
    StoreUnavailable,
    Unreadable,
    UploadMissing,
)
from replicator.format.integrity import Integrity
from replicator.store.base import Folders, Metadata, ObjectInfo, Part, Parts, Store, Uploads

T = TypeVar("T")
READ_TRIES = 3  # of an object whose bytes arrived damaged
COPY_DEADLINE = 60.0  # seconds; after that the caller sends the part instead of copying it


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The first pause, the longest pause, and the time until giving up (None: never), in seconds.

    ``first_contact`` is a shorter limit for a store that has never answered (None: no such limit):
    an address with a typing error is no outage.
    """

    first: float = 0.1
    cap: float = 10.0
    deadline: float | None = None
    first_contact: float | None = None

    def allows(self, spent: float, *, known: bool) -> bool:
        """True if work may continue after ``spent`` seconds. ``known``: the store has answered."""
        limits = [self.deadline] if known else [self.deadline, self.first_contact]
        return all(limit is None or spent <= limit for limit in limits)


# The policies, by the work that retries.
COMMAND_RETRIES = RetryPolicy(deadline=60.0, first_contact=10.0)  # commands on one archive
HISTORY_RETRIES = RetryPolicy(deadline=30.0, first_contact=10.0)
RESTORE_RETRIES = RetryPolicy(deadline=120.0, first_contact=10.0)
PROBE_RETRIES = RetryPolicy(deadline=30.0)  # SeaweedFS makes the losers of a race wait 1–3 s
SNAPSHOT_RETRIES = RetryPolicy(first=0.2, cap=5.0, deadline=60.0)
MONITOR_RETRIES = RetryPolicy(first=0.2, cap=10.0, deadline=60.0)
MARK_RETRIES = RetryPolicy(first=0.1, cap=2.0)  # until the deadline of the command
APPEND_RETRIES = RetryPolicy(first=0.1, cap=5.0)  # the store does not answer
REFUSED_APPEND_RETRIES = RetryPolicy(first=1.0, cap=15.0)  # the store refuses the segment
CAPTURE_RETRIES = RetryPolicy(first=0.25, cap=10.0)  # local work, with Pauses
RETENTION_RETRIES = RetryPolicy(first=30.0, cap=1800.0)  # merges and deletions, with Pauses
BACKGROUND_RETRY = 60.0  # seconds until failed work of no urgency runs again


def backoff(attempt: int, policy: RetryPolicy, chance: Callable[[], float]) -> float:
    """Seconds to wait after the ``attempt``-th failure (from 1): full jitter below a limit that
    doubles. ``chance`` returns numbers in [0, 1)."""
    bound: float = min(policy.cap, policy.first * 2 ** min(attempt - 1, 32))
    return bound * chance()


class Pauses:
    """Pauses that double with each failure in a row. Without jitter, because one process retries
    work of its own."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._failures = 0

    def next(self) -> float:
        """Seconds to wait after one more failure."""
        self._failures += 1
        return backoff(self._failures, self._policy, lambda: 1.0)

    def reset(self) -> None:
        """Start over with the first pause, after a success."""
        self._failures = 0


def retry_damaged(read: Callable[[], T]) -> T:
    """Call ``read``, up to three times while its bytes arrive damaged.

    Bytes damaged in transit arrive intact the next time; bytes damaged in the store do not.
    """
    for _ in range(READ_TRIES - 1):
        with contextlib.suppress(Unreadable):
            return read()
    return read()


@dataclass(frozen=True, slots=True)
class Clock:
    """Time and randomness for retries. A ``sleep`` that raises ends them."""

    now: Callable[[], float] = field(default=time.monotonic)
    sleep: Callable[[float], None] = field(default=time.sleep)
    chance: Callable[[], float] = field(default=random.random)


REAL_TIME = Clock()


class RetryingStore(Store):
    """``store``, with transient failures repeated. Closing it closes ``store``.

    A write whose answer was lost may have taken effect. Then the store refuses its repetition,
    because the object exists. So after a failed attempt, a refusal counts only if the existing
    object is another writer's.
    """

    def __init__(
        self,
        store: Store,
        policy: RetryPolicy,
        clock: Clock = REAL_TIME,
        *,
        on_failure: Callable[[StoreUnavailable], None] = lambda _: None,
    ) -> None:
        """``on_failure`` receives each failure before it is repeated."""
        self.url = store.url
        self._on_failure = on_failure
        self._store = store
        self._policy = policy
        self._clock = clock
        self._known = False  # True once the store has answered
        self._digests: dict[str, str] = {}  # SHA-256 announced for each upload begun here

    @property
    def integrity(self) -> Integrity | None:
        return self._store.integrity

    @property
    def keeps_versions(self) -> bool:
        return self._store.keeps_versions

    def _retry(self, call: Callable[[bool], T], deadline: float = math.inf) -> T:
        """Call until an answer arrives. ``call`` receives True if an earlier attempt failed, whose
        effect is unknown. Raises the last ``StoreUnavailable`` after the time of the policy or
        of ``deadline``."""
        began = self._clock.now()
        attempt = 0
        while True:
            try:
                answer = call(attempt > 0)
                self._known = True
                return answer
            except StoreUnavailable as error:
                attempt += 1
                pause = backoff(attempt, self._policy, self._clock.chance)
                spent = self._clock.now() - began + pause
                if spent > deadline or not self._policy.allows(spent, known=self._known):
                    raise
                self._on_failure(error)
                self._clock.sleep(pause)

    # ------------------------------------------------------------------ writes

    def put(
        self, key: str, body: bytes, *, metadata: Metadata | None = None, if_absent: bool = True
    ) -> None:
        def call(doubt: bool) -> None:
            try:
                self._store.put(key, body, metadata=metadata, if_absent=if_absent)
            except ObjectExists:
                if not (doubt and self._holds(key, body, metadata or {})):
                    raise

        self._retry(call)

    def _holds(self, key: str, body: bytes, metadata: Metadata) -> bool:
        """True if the existing object is the one we sent: by digest if both sides have one, else
        by its bytes."""
        try:
            info = self._store.head(key)
            named = metadata.get("sha256"), info.metadata.get("sha256")
            if info.size == len(body) and not all(named):
                return self._store.get(key) == body
            return info.size == len(body) and named[0] == named[1]
        except ObjectMissing:
            return False

    def begin_upload(self, key: str, *, metadata: Metadata | None = None) -> str:
        upload_id = self._retry(lambda _: self._store.begin_upload(key, metadata=metadata))
        self._digests[upload_id] = (metadata or {}).get("sha256", "")
        return upload_id

    def put_part(self, key: str, upload_id: str, number: int, body: bytes) -> Part:
        return self._retry(lambda _: self._store.put_part(key, upload_id, number, body))

    def copy_part(
        self, key: str, upload_id: str, number: int, source: ObjectInfo, start: int, length: int
    ) -> Part:
        """Gives up after :data:`COPY_DEADLINE`: a store may answer 500 to a request that it does
        not support."""
        return self._retry(
            lambda _: self._store.copy_part(key, upload_id, number, source, start, length),
            COPY_DEADLINE,
        )

    def complete_upload(
        self, key: str, upload_id: str, parts: Parts, *, if_absent: bool = True
    ) -> None:
        def call(doubt: bool) -> None:
            try:
                self._store.complete_upload(key, upload_id, parts, if_absent=if_absent)
            except (ObjectExists, UploadMissing):
                if not (doubt and self._completed(key, upload_id, parts)):
                    raise

        self._retry(call)
        self._digests.pop(upload_id, None)

    def _completed(self, key: str, upload_id: str, parts: Parts) -> bool:
        """True if the object is the result of this upload. No other writer uses the key of an
        upload that began without a digest, so its size is enough."""
        try:
            info = self._store.head(key)
        except ObjectMissing:
            return False
        announced = self._digests.get(upload_id)
        same_digest = not announced or info.metadata.get("sha256") == announced
        return (
            announced is not None and same_digest and info.size == sum(part.size for part in parts)
        )

    def abort_upload(self, key: str, upload_id: str) -> None:
        self._retry(lambda _: self._store.abort_upload(key, upload_id))
        self._digests.pop(upload_id, None)

    def delete(self, key: str) -> None:
        self._retry(lambda _: self._store.delete(key))

    # ------------------------------------------------------------------ reads

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        return self._retry(lambda _: self._store.get(key, start, length))

    def head(self, key: str) -> ObjectInfo:
        return self._retry(lambda _: self._store.head(key))

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        """Repeats a failed page from the last key that arrived."""
        listing = _Listing(self._store, prefix, start_after)
        while (info := self._retry(listing.step)) is not None:
            yield info

    def folders(self, prefix: str) -> Folders:
        return self._retry(lambda _: self._store.folders(prefix))

    def list_parts(self, key: str, upload_id: str) -> Parts:
        return self._retry(lambda _: self._store.list_parts(key, upload_id))

    def list_uploads(self, prefix: str) -> Uploads:
        return self._retry(lambda _: self._store.list_uploads(prefix))

    def close(self) -> None:
        self._store.close()


class _Listing:
    """A listing that can continue after a failure."""

    def __init__(self, store: Store, prefix: str, last: str) -> None:
        self._store = store
        self._prefix = prefix
        self._last = last
        self._objects: Iterator[ObjectInfo] | None = None

    def step(self, broken: bool) -> ObjectInfo | None:
        """The next object, None at the end. After a failure, lists again from the last key."""
        if broken or self._objects is None:
            self._objects = self._store.list(self._prefix, start_after=self._last)
        info = next(self._objects, None)
        if info is not None:
            self._last = info.key
        return info
