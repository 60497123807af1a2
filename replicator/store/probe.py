"""Tests the guarantees that a store must give before it receives an archive.

Owns the tests, not the verdicts. Writes only under ``{prefix}/probe/``, which no reader of an
archive reads, and deletes everything at the end; without permission to delete, a few bytes stay.
Refuses to touch any other key.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from replicator.errors import ObjectExists, ReplicatorError, StoreUnsafe
from replicator.store.base import Store
from replicator.store.retry import PROBE_RETRIES, RetryingStore


def check_reachable(store: Store, prefix: str) -> None:
    """List below ``prefix``. Raises the store's error."""
    next(store.list(f"{prefix}/" if prefix else ""), None)


def check_readable_back(store: Store, prefix: str) -> None:
    """Store an object and read it back: by range, in a listing, and with its metadata.
    ``StoreUnsafe`` if the store returns anything else; with the code ``lost_metadata`` only the
    metadata is missing, which an archive does without."""
    body, metadata = bytes(range(256)), {"sha256": "probe", "first-txid": "1"}
    with _scratch(store, prefix) as key:
        store.put(key, body, metadata=metadata)
        if store.get(key) != body or store.get(key, 16, 32) != body[16:48]:
            raise _unsafe(store, "an object came back with other bytes", code="other_bytes")
        if store.get(key, -16) != body[-16:]:
            raise _unsafe(
                store, "the end of an object came back with other bytes", code="other_bytes"
            )
        _require_listed(store, key, len(body))
        if dict(store.head(key).metadata) != metadata:
            raise _unsafe(
                store, "the metadata of an object did not come back", code="lost_metadata"
            )


def _require_listed(store: Store, key: str, size: int | None = None) -> None:
    """``StoreUnsafe`` if a listing does not show the object under the key that it was given, or
    with another ``size``. Some stores rewrite a backslash, an empty component, or a Unicode form,
    and answer to both; a gateway that compresses or encrypts may list the size that it keeps."""
    sizes = [info.size for info in store.list(key) if info.key == key]
    if sizes and size is not None and sizes != [size]:
        raise _unsafe(
            store,
            f"the store lists {sizes[0]} bytes for an object of {size}",
            code="other_size",
            hint="a restore reads as many bytes as are listed; use another store",
        )
    if not sizes:
        raise _unsafe(
            store,
            f"the store took an object as {key!r}, but lists none of that name",
            code="other_key",
            hint="choose another --prefix: letters, digits, '-', '_', '.' and single '/'",
        )


def _unsafe(store: Store, message: str, *, code: str, hint: str = "") -> StoreUnsafe:
    return StoreUnsafe(message, url=store.url, code=code, hint=hint)


def race_conditional_put(
    store: Store, prefix: str, writers: int = 16, *, patient: Store | None = None
) -> int:
    """The number of successes among ``writers`` that put different bytes under one key at the same
    time. ``StoreUnsafe`` if there is one, but the store keeps other bytes, or if it lists the
    object under another key.

    ``patient`` is ``store`` with retries; by default with :data:`.PROBE_RETRIES`.
    """
    patient = patient or RetryingStore(store, PROBE_RETRIES)
    with _scratch(store, prefix) as key:
        winners = _race(
            patient,
            key,
            [functools.partial(patient.put, key, _body(number)) for number in range(writers)],
        )
        if winners:
            _require_listed(patient, key, None if winners != 1 else len(_body(0)))
        return winners


def race_conditional_complete(store: Store, prefix: str, writers: int = 16) -> int:
    """As :func:`race_conditional_put`, but each of ``writers`` completes a multipart upload.
    SeaweedFS 4.48 lets only one PUT win, but let several completions win in half of 55 races."""
    patient = RetryingStore(store, PROBE_RETRIES)
    with _scratch(store, prefix) as key, contextlib.ExitStack() as cleanup:
        moves = []
        for number in range(writers):
            upload_id = patient.begin_upload(key, metadata={"sha256": f"writer {number}"})
            cleanup.callback(patient.abort_upload, key, upload_id)
            part = patient.put_part(key, upload_id, 1, _body(number))
            moves.append(functools.partial(patient.complete_upload, key, upload_id, [part]))
        return _race(patient, key, moves)


def _race(store: Store, key: str, moves: Sequence[Callable[[], None]]) -> int:
    """Make every move at the same time. Returns the number of successes."""
    start = threading.Barrier(len(moves))

    def make(move: Callable[[], None]) -> bool:
        start.wait()
        try:
            move()
        except ObjectExists:
            return False
        return True

    with ThreadPoolExecutor(len(moves)) as pool:
        try:
            winners = [number for number, won in enumerate(pool.map(make, moves)) if won]
        except RuntimeError:  # no further thread can start, and the others wait for it
            start.abort()
            raise
    if len(winners) == 1 and not _keeps(store, key, _body(winners[0])):
        raise _unsafe(store, "the store kept the bytes of a loser", code="other_bytes")
    return len(winners)


def _keeps(store: Store, key: str, body: bytes) -> bool:
    """True if the store keeps these bytes. Reads twice, because a bit may flip in transit."""
    return any(store.get(key) == body for _ in range(2))


def _body(writer: int) -> bytes:
    return b"writer %04d" % writer  # all of one length


def completes_conditionally(store: Store, prefix: str) -> bool:
    """True if the completion of a multipart upload respects an existing object. For two
    completions at the same time, see :func:`race_conditional_complete`."""
    with _scratch(store, prefix) as key:
        upload_id = store.begin_upload(key)
        try:
            part = store.put_part(key, upload_id, 1, b"late")
            store.put(key, b"early")
            store.complete_upload(key, upload_id, [part])
        except ObjectExists:
            return store.get(key) == b"early"
        finally:
            store.abort_upload(key, upload_id)
        return False


@contextlib.contextmanager
def _scratch(store: Store, prefix: str) -> Iterator[str]:
    """A key of our own, deleted at the end."""
    key = "/".join(filter(None, (prefix, "probe", uuid.uuid4().hex)))
    try:
        yield key
    finally:
        with contextlib.suppress(ReplicatorError):
            store.delete(key)
