"""One whole life on a disk that may be struck: a database, its application, its replicator.

Every access to the disk goes through the one door to the file system, so a life without faults
tells what can be struck (see StrikingFiles), and `strikes` makes a plan of it.
"""

import contextlib
import errno
import logging
import shutil
import threading
from functools import partial
from pathlib import Path

import pytest

from replicator import replicator as parts
from replicator import restore
from replicator.cache.limits import CacheLimits
from replicator.capture import holds as tail
from replicator.engine import capture_thread as pipeline
from replicator.engine import session
from replicator.errors import LocalIOError, NotDurable, ReplicatorError
from replicator.recovery import fetch, rebuild
from replicator.replicator import SqliteReplicator
from replicator.system.clock import now_ms
from replicator.upload import uploader as upload
from tests.helpers.files import StrikingFiles
from tests.helpers.replication import LONG, App, HookedStore, config_for, image_of
from tests.helpers.store_faults import MINUTE_MS

SOON = 0.1  # seconds after which a flush is given up and asked for again
SAMPLES = 20  # of the status while the disk is in trouble
TROUBLE = ("disk is full", "disk i/o error", "no space left on device", "input/output error")
KINDS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "short write": "short"}
LOOKS = ("stat", "fstat", "listdir", "statvfs", "open", "pread", "preadv", "SELECT", "flock")
FREES = ("unlink", "rmdir", "DELETE")
NAMES = {
    "app.db": "database",
    "app.db-wal": "log",
    "pages.xxh": "hashes",
    "pages.xxh.tmp": "hashes",
    "state.db": "ledger",
    "lock": "lock",
    "parts": "parts",
    "database": "rebuilt",
    "restored.json": "note",
    "restored.json.tmp": "note",
    "drill.db": "drill",
    "scratch": "scratch",
}
LOG = logging.getLogger("replicator")


def name_of(path):
    """What a path of a life is."""
    name, parent = Path(path).name, Path(path).parent.name
    if parent == "segments":
        return "draft" if name.startswith("draft") else "segment"
    return NAMES.get(name, "spool" if name.startswith("segment-") else "directory")


def applicable(point, kind):
    """Whether a call can meet such trouble at all."""
    if kind == "short write":
        return point[0] in StrikingFiles.WRITES
    return kind == "EIO" or point[0] not in LOOKS + FREES


def strikes(seen, kind, rng, *, often, most):
    """(point, n) of every call that can meet it: of those that only look ``often`` of each kind
    (None: all); in the end ``most`` of them."""
    found = [
        (point, nth)
        for point, count in sorted(seen.items())
        if applicable(point, kind)
        for nth in _numbers(point, count, rng, often)
    ]
    return found if most is None else rng.sample(found, min(most, len(found)))


def _numbers(point, count, rng, often):
    every = range(1, count + 1)
    if often is None or point[0] not in LOOKS:
        return every
    return sorted(rng.sample(every, min(often, count)))


def names_it(text):
    """Whether it speaks of the trouble, and not of the store that is away meanwhile."""
    return any(word in str(text).lower() for word in TROUBLE)


@contextlib.contextmanager
def short_ways():
    """All that takes thousands of commits, or seconds, elsewhere happens within a few here."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (tail, session):
            patch.setattr(module, "ROLL_OVER_FRAMES", 40)
        patch.setattr(parts, "CACHE_LIMITS", CacheLimits(least_changes=400))
        for module, name in (
            (upload, "SINGLE_PUT_BYTES"),
            (fetch, "RANGE_BYTES"),
            (rebuild, "ONE_GET_BYTES"),
        ):
            patch.setattr(module, name, 100_000)
        for name in ("FIRST_PAUSE", "LONGEST_PAUSE", "WAIT_FOR_DATABASE", "TICK"):
            patch.setattr(pipeline, name, 0.01)
        patch.setattr(upload, "backoff", lambda *_: 0.005)
        yield


class Ear(logging.Handler):
    """What the log says of the trouble, as a warning or worse."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.heard = []

    def emit(self, record):
        if names_it(record.getMessage()):
            self.heard.append(record.getMessage())


class Life:
    """Each step ends with the disk in order again."""

    def __init__(self, place):
        place.mkdir()
        self.place, self.files = place, StrikingFiles(name_of)
        self.app = App(place / "app.db")
        self.app.insert(5)
        self.store = HookedStore()
        self.ear = Ear()
        self.refused = []
        self._tick = threading.Event()
        self.lies = []  # healthy while nothing could be made durable, or not a word of it
        LOG.addHandler(self.ear)
        LOG.propagate = False  # for who keeps the records of all lives keeps the lives
        self.mine = SqliteReplicator(
            config_for(
                place / "app.db",
                cache_dir=place / "cache",
                max_cache_bytes=1 << 20,
                drill_scratch=place / "scratch",
                keep=True,
            ),
            store=self.store,
            files=self.files,
        )

    def live(self):
        """First start, cuts, a snapshot, merges; an outage with a squash, the end; a start on a
        cache in which segments wait, a segment in parts, a roll-over; a log that was reset while
        nobody followed it; a lost cache; a drill, the end."""
        self.start()
        for _ in range(3):
            self.commit(3)
            self.flush()
        self.flush(snapshot=True)
        self.past()
        self.outage()
        self.start()
        self.commit(400, size=500)
        self.flush()
        self.app.checkpoint()
        self.commit()
        self.flush()
        self.mine.stop()
        self.commit()
        self.app.checkpoint("TRUNCATE")
        self.commit()
        self.start()
        self.flush()
        self.mine.stop()
        shutil.rmtree(self.place / "cache")
        self.start()
        self.drill()
        self.commit()
        self.flush()
        self.mine.stop()

    def close(self):
        self.files.clear()
        with contextlib.suppress(ReplicatorError):
            self.mine.stop()
        LOG.removeHandler(self.ear)
        LOG.propagate = True
        self.app.close()
        shutil.rmtree(self.place)

    # the steps

    def commit(self, *args, **options):
        """The application meets no error, whatever the disk of the cache does."""
        self.app.insert(*args, **options)

    def start(self):
        self.patiently(lambda: self.mine._parts or self.mine.start())

    def flush(self, **options):
        self.patiently(lambda: self.mine.flush(SOON, **options), promised=True)

    def outage(self):
        """The store is away until the cache is full; then the process ends."""
        self.store.go_away("wal/")
        for _ in range(5):
            self.commit(300, size=500)
            self.patiently(self._capture)
        self.mine.stop()
        self.store.come_back()

    def _capture(self):
        """Or not, if the cache is full of what waits for the store."""
        try:
            self.mine._parts.pipeline.capture_all().result(SOON)
        except TimeoutError:
            if self.in_trouble:
                raise

    def past(self):
        """Merge, from what lies in the cache, and prune what the merges stand for."""
        for minutes in (20, 40, 120):
            self.patiently(partial(self._keep, now_ms() + minutes * MINUTE_MS))

    def _keep(self, at_ms):
        keeping = self.mine._parts.keeper._keeping
        keeping.begin(at_ms)
        while keeping.step(at_ms):
            pass

    def drill(self):
        self.patiently(self.mine._parts.guard._drill)

    # what must hold meanwhile

    @property
    def in_trouble(self):
        plan = self.files._plan
        return plan is not None and plan[3] and self.files.struck and plan[2] != "short"

    def patiently(self, step, *, promised=False):
        """Do it; once the trouble was met and told, clear the disk and do it again."""
        for _ in range(int(LONG / SOON)):
            try:
                step()
                done = True
            except (LocalIOError, NotDurable, TimeoutError) as error:
                self.refused += [str(error)] if names_it(error) else []
                done = False
            if self.in_trouble:
                self.endure(promised=promised and not done)
            elif done:
                return
        raise AssertionError("it never came through")

    def endure(self, *, promised):
        """Somebody is told while it lasts; ``promised``: a flush just failed, so whoever calls
        it healthy now must be able to flush."""
        if not self.at_length(self.is_told):
            self.lies.append("silence")
        if promised and self.at_length(lambda: self.mine.status().healthy, SAMPLES):
            self.believe()
        self.files.clear()

    def at_length(self, condition, looks=1000):
        """Whether it came true within so many looks."""
        return any(condition() or self._tick.wait(0.005) for _ in range(looks))

    def believe(self):
        """The disk is still in trouble, but what is called healthy must work."""
        try:
            self.mine.flush(LONG / 10)
        except (LocalIOError, NotDurable) as error:
            self.lies.append(f"healthy, and yet {error}")

    def is_told(self):
        """Whether anybody hears of the trouble: from an exception, the log, or the status."""
        return bool(self.ear.heard or self.refused or names_it(self.mine.status().last_error))

    def check(self):
        """Nothing was lost, and the copy is exact."""
        assert self.mine.failed is None
        assert self.lies == []
        image = image_of(self.app.path)
        output = self.place / "restored.db"
        report = restore(store=self.store.inner, prefix="app.db", output=output)
        assert output.read_bytes() == image
        assert report.txid == self.mine.status().durable_txid
