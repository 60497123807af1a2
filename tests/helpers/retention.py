"""An archive with a long history: its transactions and objects have simulated times."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from replicator import restore
from replicator.archive.index import WalObject
from replicator.archive.keys import Keys
from replicator.format.object_header import parse_metadata
from replicator.metrics import Metrics
from replicator.model import Retention
from replicator.retention.limits import RetentionLimits
from replicator.retention.worker import RetentionSteps
from replicator.store.memory import MemoryStore
from tests.helpers.bucket import EPOCH_MS, BucketBuilder
from tests.helpers.mail import ReadableMailbox

SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000
KEYS = Keys("app.db")


@dataclass
class GivenSegments:
    """The segments of a replicator, as a test gives them."""

    appended: Callable
    cached: Callable = lambda *_: []
    merged: Callable = lambda *_: None


class AgedStore(MemoryStore):
    """A store in memory with a simulated clock."""

    def __init__(self):
        super().__init__()
        self.now_ms = EPOCH_MS

    def put(self, key, body, *, metadata=None, if_absent=True):
        super().put(key, body, metadata=metadata, if_absent=if_absent)
        stored = self._objects[key]
        self._objects[key] = replace(stored, info=replace(stored.info, modified_ms=self.now_ms))


class AgedArchive:
    """A database and its archive in simulated time; ``insert``, ``cut`` and so on happen now."""

    def __init__(self, directory, store=None, **options):
        self.store = store if store is not None else AgedStore()
        self.times = {}
        self.bucket = BucketBuilder(directory, self.store, when=self._when, **options)

    def _when(self, txid):
        return self.times.setdefault(txid, self.now_ms)

    @property
    def now_ms(self):
        return self.store.now_ms

    def wait(self, ms):
        self.store.now_ms += ms

    @property
    def images(self):
        return self.bucket.images

    @property
    def txid(self):
        return self.bucket.txid

    def insert(self, rows=1, *, cut=True):
        self.times[self.bucket.insert(rows)] = self.now_ms
        if cut:
            self.cut()

    def run(self, *statements):
        self.times[self.bucket.run(*statements)] = self.now_ms

    def cut(self):
        return self.bucket.cut() if self.bucket.first <= self.bucket.txid else None

    def snapshot(self):
        self.cut()
        key = KEYS.snapshot(self.txid, self.bucket.generation)
        if not any(info.key == key for info in self.store.list(key)):
            self.bucket.snapshot()

    def start_generation(self):
        self.cut()
        self.bucket.start_generation()

    def close(self):
        self.bucket.close()

    # ------------------------------------------------------------- input of the retention worker

    def appended(self, since):
        """The segments after ``since`` with their facts, as a cache would report them."""
        found = []
        for info in self.store.list(KEYS.wal_dir, start_after=KEYS.wal(since)):
            facts = parse_metadata(info.metadata) or parse_metadata(
                self.store.head(info.key).metadata
            )
            found.append(
                WalObject(
                    info.key,
                    0,
                    facts.first_txid,
                    facts.last_txid,
                    info.size,
                    info.modified_ms,
                    facts,
                )
            )
        return found

    def retention_steps(
        self, *, store=None, rules=None, cached=lambda *_: [], mailbox=None, **limits
    ):
        """``limits`` are fields of RetentionLimits."""
        return RetentionSteps(
            store=store or self.store,
            keys=KEYS,
            rules=rules or Retention(),
            segments=GivenSegments(self.appended, cached),
            metrics=Metrics(),
            mailbox=mailbox or ReadableMailbox(),
            limits=RetentionLimits(**limits),
            created_by="tests",
            level=3,
        )

    def keep(self, steps):
        """Runs the worker until it has nothing left to do now."""
        steps.step(self.now_ms)
        for _ in range(1000):
            if not steps.step(self.now_ms):
                return
        raise AssertionError("the worker never finishes")

    # ------------------------------------------------------------- results

    def restored(self, directory, txid=None, store=None):
        output = directory / f"{txid}.db"
        restore(
            store=store or self.store, prefix="app.db", output=output, txid=txid, overwrite=True
        )
        return output.read_bytes()

    def keys(self, folder=""):
        return [info.key for info in self.store.list(f"app.db/{folder}")]
