"""What a store must prove before a log is entrusted to it; asked by ``doctor``.

Owns the questions, not the verdicts. Everything written lies under ``{prefix}/probe/`` and is
removed again, whatever comes out.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from replicator.edge.store.base import Store
from replicator.edge.store.retry import RetryingStore, RetryPolicy
from replicator.errors import ObjectExists, StoreUnsafe

PATIENCE = 30.0  # seconds; SeaweedFS makes the losers of a race wait 1–3 s


def check_reachable(store: Store, prefix: str) -> None:
    """List below ``prefix``; raises what the store has against it."""
    next(store.list(f"{prefix}/" if prefix else ""), None)


def check_readable_back(store: Store, prefix: str) -> None:
    """Store an object and read it back, by range and with its metadata; ``StoreUnsafe`` when
    anything comes back different."""
    body, metadata = bytes(range(256)), {"sha256": "probe", "first-txid": "1"}
    with _scratch(store, prefix) as key:
        store.put(key, body, metadata=metadata)
        if store.get(key) != body or store.get(key, 16, 32) != body[16:48]:
            raise StoreUnsafe("an object came back with other bytes")
        if store.get(key, -16) != body[-16:]:
            raise StoreUnsafe("the end of an object came back with other bytes")
        if dict(store.head(key).metadata) != metadata:
            raise StoreUnsafe("the metadata of an object did not come back")


def race_conditional_put(store: Store, prefix: str, writers: int = 16) -> int:
    """How many of ``writers``, appending different bytes under one key at the same instant,
    were told that they won. ``StoreUnsafe`` if the only winner's bytes are not the ones kept."""
    patient = RetryingStore(store, RetryPolicy(deadline=PATIENCE))
    start = threading.Barrier(writers)
    with _scratch(store, prefix) as key, ThreadPoolExecutor(writers) as pool:
        def write(number: int) -> bool:
            start.wait()
            return _created(patient, key, b"writer %d" % number)

        winners = [number for number, won in enumerate(pool.map(write, range(writers))) if won]
        if len(winners) == 1 and patient.get(key) != b"writer %d" % winners[0]:
            raise StoreUnsafe("the store kept another writer's bytes than the winner's")
    return len(winners)


def _created(store: Store, key: str, body: bytes) -> bool:
    try:
        store.put(key, body)
    except ObjectExists:
        return False
    return True


def completes_conditionally(store: Store, prefix: str) -> bool:
    """Whether completing a multipart upload respects an object that is there already."""
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
    """A key nobody else uses, removed at the end."""
    key = "/".join(filter(None, (prefix, "probe", uuid.uuid4().hex)))
    try:
        yield key
    finally:
        store.delete(key)
