"""An application's database, a store that follows hooks, and a restore, for tests of replication.

The helpers use public names of the project only; `image_of` reads the WAL with a reader of its own.
"""

import contextlib
import os
import sqlite3
import struct
import threading
from pathlib import Path

from replicator import restore
from replicator.config.settings import SqliteReplicatorConfig
from replicator.engine.in_process import InProcessReplicator
from replicator.errors import StoreUnavailable
from replicator.store.base import Store
from replicator.store.memory import MemoryStore
from tests.helpers.bucket import plain_state
from tests.helpers.limits import limits_for

LONG = 100.0  # seconds after which a test is stuck; nothing is ever timed against it


class App:
    """An application's connection to its database. ``timeout`` is in seconds."""

    def __init__(
        self,
        path,
        *,
        page_size=4096,
        autocheckpoint=0,
        mode="WAL",
        cache_pages=2000,
        timeout=5.0,
    ):
        self.path = Path(path)
        self.db = sqlite3.connect(
            path, timeout=timeout, isolation_level=None, check_same_thread=False
        )
        for pragma in (
            f"page_size={page_size}",
            f"journal_mode={mode}",
            "synchronous=OFF",
            f"wal_autocheckpoint={autocheckpoint}",
            f"cache_size={cache_pages}",
        ):
            self.db.execute(f"PRAGMA {pragma}").fetchall()
        self.db.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, body BLOB)")

    def run(self, *statements):
        for statement in statements:
            self.db.execute(statement).fetchall()

    def insert(self, rows=1, size=300):
        self.run(
            "INSERT INTO t(body) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 "
            f"FROM n WHERE i < {rows}) SELECT randomblob({size}) FROM n"
        )

    def checkpoint(self, mode="PASSIVE"):
        return self.db.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()

    def image(self):
        return image_of(self.path)

    def close(self):
        self.db.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def image_of(path):
    """The committed database, assembled without SQLite and without any lock."""
    log = Path(f"{path}-wal")
    # The file is read by a descriptor that stays open: closing it would drop the locks of
    # every connection that this process has to the database.
    descriptor = _OPEN.setdefault(os.stat(path).st_ino, None)
    if descriptor is None:
        descriptor = _OPEN[os.stat(path).st_ino] = os.open(path, os.O_RDONLY)
    data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    return plain_state(data, log.read_bytes() if log.exists() else b"")


_OPEN = {}


def frames_in(batches):
    """(page number, size at a commit, image) of each frame of a capture."""
    for batch in batches:
        size = batch.base.page_size + 24
        for n in range(batch.count):
            pgno, commit = struct.unpack_from(">2I", batch.data, n * size)
            yield pgno, commit, bytes(batch.data[n * size + 24 : (n + 1) * size])


class HookedStore(Store):
    """A store that forwards to another and runs the hooks of a test around each call.

    ``before(method, key)`` runs before each call, ``after(method, key)`` once it took effect;
    both may raise or block. ``calls`` lists (method, key).
    """

    def __init__(self, inner=None):
        self.inner = inner if inner is not None else MemoryStore()
        self.url = self.inner.url
        self.calls = []
        self.before = self.after = lambda method, key: None
        self._lock = threading.Lock()

    def _call(self, method, key, *args, **options):
        with self._lock:
            self.calls.append((method, key))
        self.before(method, key)
        result = getattr(self.inner, method)(key, *args, **options)
        self.after(method, key)
        return result

    def keys(self, method):
        return [key for name, key in self.calls if name == method]

    def put(self, key, body, *, metadata=None, if_absent=True):
        self._call("put", key, body, metadata=metadata, if_absent=if_absent)

    def get(self, key, start=0, length=None):
        return self._call("get", key, start, length)

    def head(self, key):
        return self._call("head", key)

    def list(self, prefix, *, start_after=""):
        yield from self._call("list", prefix, start_after=start_after)

    def folders(self, prefix):
        return self._call("folders", prefix)

    def delete(self, key):
        self._call("delete", key)

    def begin_upload(self, key, *, metadata=None):
        return self._call("begin_upload", key, metadata=metadata)

    def put_part(self, key, upload_id, number, body):
        return self._call("put_part", key, upload_id, number, body)

    def copy_part(self, key, upload_id, number, source, start, length):
        return self._call("copy_part", key, upload_id, number, source, start, length)

    def list_parts(self, key, upload_id):
        return self._call("list_parts", key, upload_id)

    def complete_upload(self, key, upload_id, parts, *, if_absent=True):
        self._call("complete_upload", key, upload_id, parts, if_absent=if_absent)

    def abort_upload(self, key, upload_id):
        self._call("abort_upload", key, upload_id)

    def list_uploads(self, prefix):
        return self._call("list_uploads", prefix)

    def close(self):
        pass

    # faults

    def go_away(self, *folders):
        """Makes every request fail, or only those whose key contains one of ``folders``."""

        def before(method, key):
            if not folders or any(folder in key for folder in folders):
                raise StoreUnavailable("the store is away")

        self.before = before

    def come_back(self):
        self.before = lambda method, key: None

    def wipe(self):
        for info in list(self.inner.list("")):
            self.inner.delete(info.key)


def config_for(path, **settings):
    values = {
        "db_path": path,
        "url": "s3://bucket/app.db",
        "sync_interval": 0.0,
        "busy_timeout": 0.2,
        "poll_interval": 0.05,
    }
    return SqliteReplicatorConfig(**values | settings)


def replicator_for(path, store, *, limits=None, files=None, **settings):
    """``limits`` are fields of the limits by part, see :mod:`tests.helpers.limits`."""
    config = config_for(path, **settings)
    limits = limits_for(config, limits or {})
    return InProcessReplicator(config, store=store, files=files, limits=limits)


@contextlib.contextmanager
def replicating(path, store, **settings):
    """A started replicator, stopped (without a flush) at the end."""
    replicator = replicator_for(path, store, **settings)
    replicator.start()
    try:
        yield replicator
    finally:
        replicator.stop()


def replicate_once(path, store, **settings):
    """Starts a replicator and flushes it. A refusal comes from the start, or from the flush if the
    start ended before it was known."""
    with replicating(path, store, **settings) as replicator:
        return replicator.flush(LONG)


def restored(store, directory, **options):
    """(report, bytes) of a restore that reads the store only."""
    output = Path(directory) / f"restored-{len(os.listdir(directory))}.db"
    report = restore(store=store, prefix=options.pop("prefix", "app.db"), output=output, **options)
    return report, output.read_bytes()


def wait_for(condition, interval=0.005):
    """Returns the value of ``condition()`` once it is true; fails only when a test is stuck."""
    tick = threading.Event()
    for _ in range(int(LONG / interval)):
        if value := condition():
            return value
        tick.wait(interval)
    raise AssertionError("the condition never became true")
