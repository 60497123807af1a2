"""Faults of the local disk in one scenario with a database, its application and its replicator.

Every access to the disk goes through `Files`, so a run without faults lists all calls that a fault
can strike (see `StrikingFiles`), and `strikes` selects some of them.
"""

import contextlib
import errno
import logging
import shutil
import threading
from functools import partial
from pathlib import Path

import pytest

from replicator import restore
from replicator.engine.in_process import InProcessReplicator
from replicator.errors import LocalIOError, NotDurable, ReplicatorError
from replicator.recovery import api
from replicator.recovery.limits import RecoveryLimits
from replicator.store.retry import RetryPolicy
from replicator.system.clock import now_ms
from replicator.system.mailbox import Wanted
from tests.helpers.files import StrikingFiles
from tests.helpers.limits import limits_for
from tests.helpers.replication import LONG, App, HookedStore, config_for, image_of
from tests.helpers.store_faults import MINUTE_MS

SOON = 0.1  # seconds after which a flush is given up and asked for again
SAMPLES = 20  # of the status while the disk has a fault
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
    """A short word for a path of a scenario."""
    name, parent = Path(path).name, Path(path).parent.name
    if parent == "segments":
        return "draft" if name.startswith("draft") else "segment"
    return NAMES.get(name, "spool" if name.startswith("segment-") else "directory")


def applicable(point, kind):
    """True if a call can meet such a fault at all."""
    if kind == "short write":
        return point[0] in StrikingFiles.WRITES
    return kind == "EIO" or point[0] not in LOOKS + FREES


def strikes(seen, kind, rng, *, often, most):
    """(point, n) of every call that can meet the fault: of each kind of reading call ``often``
    (None: all), and in total at most ``most``."""
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


def names_trouble(text):
    """True if the text is about the disk's fault and not about the store, which is also away."""
    return any(word in str(text).lower() for word in TROUBLE)


QUICK = RetryPolicy(first=0.005, cap=0.005)
LIMITS = {
    "capture": {"roll_over_frames": 40},
    "cache": {"least_changes": 400},
    "upload": {"single_put_bytes": 100_000, "transient": QUICK, "refused": QUICK},
    "loop": {
        "retries": RetryPolicy(first=0.01, cap=0.01),
        "wait_for_database": 0.01,
        "tick": 0.01,
    },
}
RECOVERY = RecoveryLimits(range_bytes=100_000, one_get_bytes=100_000)  # of restores and drills


@contextlib.contextmanager
def small_limits():
    """Limits so small that a few commits reach everything that usually takes thousands."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "DEFAULT_LIMITS", RECOVERY)
        yield


class LogCapture(logging.Handler):
    """The warnings and errors of our logger that name the disk's fault."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        if names_trouble(record.getMessage()):
            self.messages.append(record.getMessage())


class DiskScenario:
    """Each step ends with a disk without a fault."""

    def __init__(self, place):
        place.mkdir()
        self.place, self.files = place, StrikingFiles(name_of)
        self.app = App(place / "app.db")
        self.app.insert(5)
        self.store = HookedStore()
        self.captured = LogCapture()
        self.refused = []
        self._tick = threading.Event()
        self.false_reports = []  # "healthy" while nothing became durable, or no report
        LOG.addHandler(self.captured)
        LOG.propagate = False  # a handler that keeps records would keep the scenarios alive
        config = config_for(
            place / "app.db",
            cache_dir=place / "cache",
            max_cache_bytes=1 << 20,
            drill_scratch=place / "scratch",
            keep=True,
        )
        self.mine = InProcessReplicator(
            config,
            store=self.store,
            files=self.files,
            limits=limits_for(config, LIMITS),
        )

    def run(self):
        """First start, cuts, a snapshot, merges; an outage with a squash, the end; a start on a
        cache with pending segments, a segment in parts, a roll-over; a WAL that was reset while no
        replicator ran; a lost cache; a drill, the end."""
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
        LOG.removeHandler(self.captured)
        LOG.propagate = True
        self.app.close()
        shutil.rmtree(self.place)

    # the steps

    def commit(self, *args, **options):
        """The application meets no error, whatever the disk of the cache does."""
        self.app.insert(*args, **options)

    def start(self):
        self.retry_until_done(lambda: self.mine._engine or self.mine.start())

    def flush(self, **options):
        self.retry_until_done(lambda: self.mine.flush(SOON, **options), promised=True)

    def outage(self):
        """The store is away until the cache is full; then the process ends."""
        self.store.go_away("wal/")
        for _ in range(5):
            self.commit(300, size=500)
            self.retry_until_done(self._capture)
        self.mine.stop()
        self.store.come_back()

    def _capture(self):
        """Captures, unless the cache is full of pending segments."""
        try:
            self.mine._engine.mailbox.ask(Wanted.CAPTURE).result(SOON)
        except TimeoutError:
            if self.in_trouble:
                raise

    def past(self):
        """Merges from the segments in the cache, and prunes the merged segments."""
        for minutes in (20, 40, 120):
            self.retry_until_done(partial(self._keep, now_ms() + minutes * MINUTE_MS))

    def _keep(self, at_ms):
        steps = self.mine._engine.retention._steps
        steps.begin(at_ms)
        while steps.step(at_ms):
            pass

    def drill(self):
        self.retry_until_done(self.mine._engine.monitor._drill)

    # invariants under a fault

    @property
    def in_trouble(self):
        plan = self.files._plan
        return plan is not None and plan[3] and self.files.struck and plan[2] != "short"

    def retry_until_done(self, step, *, promised=False):
        """Runs ``step``; after a fault was reported, clears the disk and runs it again."""
        for _ in range(int(LONG / SOON)):
            try:
                step()
                done = True
            except (LocalIOError, NotDurable, TimeoutError) as error:
                self.refused += [str(error)] if names_trouble(error) else []
                done = False
            if self.in_trouble:
                self.wait_for_report(promised=promised and not done)
            elif done:
                return
        raise AssertionError("the step never succeeded")

    def wait_for_report(self, *, promised):
        """Checks that the fault is reported while it lasts. After a failed flush (``promised``) a
        status that is healthy requires that a flush works."""
        if not self.becomes_true(self.is_reported):
            self.false_reports.append("silence")
        if promised and self.becomes_true(lambda: self.mine.status().healthy, SAMPLES):
            self.check_health_claim()
        self.files.clear()

    def becomes_true(self, condition, looks=1000):
        """True if the condition became true within so many checks."""
        return any(condition() or self._tick.wait(0.005) for _ in range(looks))

    def check_health_claim(self):
        """A flush must work although the disk has a fault, because the status was healthy."""
        try:
            self.mine.flush(LONG / 10)
        except (LocalIOError, NotDurable) as error:
            self.false_reports.append(f"healthy, and yet {error}")

    def is_reported(self):
        """True if an exception, a log record or the status reports the fault."""
        return bool(
            self.captured.messages or self.refused or names_trouble(self.mine.status().last_error)
        )

    def reports(self):
        """(false reports, log messages, refusals) so far, for the error of a failed test."""
        return self.false_reports, self.captured.messages, self.refused

    def check(self):
        """Nothing was lost, and a restored copy is exact."""
        assert self.mine.failed is None
        assert self.false_reports == []
        image = image_of(self.app.path)
        output = self.place / "restored.db"
        report = restore(store=self.store.inner, prefix="app.db", output=output)
        assert output.read_bytes() == image
        assert report.txid == self.mine.status().durable_txid
