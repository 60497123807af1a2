"""Faults of the store at each call of one scenario that covers the work of a replicator.

`StoreScenario` runs its steps in order: snapshots and segments, whole and in parts, restarts,
merges, a lost cache, a take-over, restores. Each request of a run without faults is a `CallSite`
at which a `Fault` can strike. The fault lasts until the replicator or the caller has reported it.
Then the store works again, and the same replicator must bring everything into the bucket.
"""

import contextlib
import logging
import shutil
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from replicator.engine.in_process import InProcessReplicator
from replicator.errors import (
    AccessDenied,
    DamageError,
    Fenced,
    NotDurable,
    ObjectExists,
    ObjectMissing,
    RefusedError,
    ReplicatorError,
    StoreUnavailable,
    StoreUnsafe,
)
from replicator.metrics import Metrics
from replicator.retention.api import retention_worker
from replicator.retention.limits import RetentionLimits
from replicator.retention.segments import CachedSegments
from replicator.store import retry
from replicator.store.memory import MemoryStore
from replicator.store.retry import RetryPolicy
from replicator.system.mailbox import Mailbox
from replicator.system.scheduler import Scheduler
from replicator.testing import (
    FaultyStore,
    RecordingStore,
    answer_lost,
    broken_after,
    corrupted,
    hanging,
    raising,
    truncated,
)
from tests.helpers.limits import limits_for
from tests.helpers.replication import LONG, App, config_for, wait_for
from tests.helpers.restores import restore_with

KIB, MINUTE_MS = 1 << 10, 60_000
FOREIGN = (
    b"of another writer",
    {"writer": "01900000-0000-7000-8000-00000000000f", "host": "process 7 on elsewhere"},
)
FOLDERS = ("wal/", "merged/", "snapshots/", "probe/", "proofs/", "pins/", "metadata.json", "")
# The errors that each fault may raise in the caller; the replicator must handle most by retries.
ALLOWED_ERRORS = {
    "error once": (),
    "answer lost": (),
    "hang": (),
    "upload gone": (StoreUnavailable,),
    "error for ever": (StoreUnavailable,),
    "403": (AccessDenied,),
    "truncated": (StoreUnavailable, DamageError, StoreUnsafe),
    "corrupted": (StoreUnavailable, DamageError, StoreUnsafe),
    "412": (ObjectExists, StoreUnavailable, StoreUnsafe),
    "412 once": (ObjectExists, StoreUnavailable),
}
ONE_SHOT = ("error once", "answer lost", "hang", "412 once", "upload gone", "taken")
# Nothing depends on these; a replicator may continue without them and without a report. (Of four
# racers three are refused anyway.)
OPTIONAL = {
    ("delete", "probe/"),
    ("put", "probe/"),
    ("put", "metadata.json"),
    ("list_uploads", ""),
    ("list", "proofs/"),
}
# Without these a snapshot is sent as a whole, which needs no report.
UNCOPIED = {("copies", "copy_part"), ("copies", "get")}


QUICK = RetryPolicy(first=0.002, cap=0.002)
LIMITS = {
    "upload": {
        "part_bytes": 32 * KIB,
        "single_put_bytes": 64 * KIB,
        "transient": QUICK,
        "refused": QUICK,
    },
    "snapshot": {
        "part_bytes": 32 * KIB,
        "copy_part_bytes": 32 * KIB,
        "block_bytes": 16 * KIB,
    },
    "loop": {"retries": RetryPolicy(first=0.01, cap=0.01)},
    "snapshot_retries": RetryPolicy(deadline=0.05),
    "answer_patience": 0.2,
}
RECOVERY = {
    "range_bytes": 64 * KIB,
    "one_get_bytes": 64 * KIB,
    "retries": RetryPolicy(deadline=0.05),
}


@contextlib.contextmanager
def small_limits():
    """Pauses in milliseconds, and part sizes so small that little data makes many parts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retry, "backoff", lambda *_: 0.002)
        # Records of the log would keep the scenarios alive.
        patch.setattr(logging.root.manager, "disable", logging.CRITICAL)
        yield


@dataclass(frozen=True)
class CallSite:
    """A call in the scenario: the ``nth`` of its name in ``folder`` since the step began."""

    step: str
    call: str
    folder: str
    nth: int
    key: str


class Fault:
    """A fault of the call at ``call_site``, and of the calls after it until :meth:`mend`."""

    def __init__(self, call_site, name):
        self.call_site, self.name = call_site, name
        self.struck = threading.Event()
        self._hang = hanging()

    def _effect(self, store):
        if self.name == "upload gone":
            return lambda proceed: (_abort_all(store), proceed())
        if self.name == "taken":
            return lambda proceed: (_take(store, self.call_site.key), proceed())
        reads = {
            ("truncated", "get"): truncated(7),
            ("corrupted", "get"): corrupted(-8),
            ("truncated", "list"): broken_after(1, StoreUnavailable("the answer was cut short")),
        }
        answers = {
            "hang": self._hang,
            "answer lost": answer_lost,
            "403": raising(AccessDenied("403 by script")),
            "412": raising(ObjectExists("412 by script")),
            "412 once": raising(ObjectExists("412 by script")),
        }
        otherwise = raising(StoreUnavailable(f"{self.name} by script"))
        return reads.get((self.name, self.call_site.call)) or answers.get(self.name, otherwise)

    def arm(self, scenario):
        effect = self._effect(scenario.inner)

        def strike(proceed):
            self.struck.set()
            return effect(proceed)

        scenario.store.script(
            self.call_site.call,
            strike,
            nth=self.call_site.nth,
            key=self.call_site.folder,
            times=1 if self.name in ONE_SHOT else None,
        )

    def mend(self, scenario):
        scenario.store.heal()
        self._hang.released.set()


def _take(store, key):
    body, metadata = FOREIGN
    store.put(key, body, metadata=metadata)


def _abort_all(store):
    for found in store.list_uploads(""):
        store.abort_upload(found.key, found.upload_id)


class StoreScenario:
    """Each step has a method ``do_…`` that acts once, and a method ``ask_…`` (default: a flush)
    that waits until the result is durable; it runs again after it raised a fault's error."""

    STEPS = (
        "begin",
        "segment",
        "large",
        "snapshot",
        "copies",
        "restart",
        "catch_up",
        "resume",
        "past",
        "adopt",
        "restore",
        "take_over",
        "history",
    )

    def __init__(self, directory):
        self.directory = directory
        self.inner = MemoryStore()
        self.record = RecordingStore(self.inner)
        self.store = FaultyStore(self.record)
        self.app = App(directory / "app.db")
        self.images = [self.app.image()]
        self.safe = 0  # the index of the image that the replicator last reported durable
        self.replicator = None
        self.cache, self.take_over = "cache-1", False
        self.call_sites, self.outcomes = [], Counter()
        self.fenced = None
        self.steps = None
        self._restores = 0

    # ------------------------------------------------------------------ steps

    def commit(self, size=300):
        self.app.insert(1, size)
        self.images.append(self.app.image())

    def config(self):
        return config_for(
            self.app.path,
            cache_dir=self.directory / self.cache,
            keep=False,
            take_over=self.take_over,
        )

    def started(self):
        if self.replicator is None:
            config = self.config()
            replicator = InProcessReplicator(
                config, store=self.store, limits=limits_for(config, LIMITS)
            )
            replicator.start()
            self.replicator = replicator
        return self.replicator

    def stop(self):
        if self.replicator is not None:
            self.replicator.stop()
            self.replicator = None

    def flush(self):
        count = len(self.images) - 1
        self.started().flush(LONG)
        self.safe = max(self.safe, count)

    do_begin = do_segment = do_snapshot = do_copies = commit

    def do_large(self):
        self.commit(150 * KIB)

    def ask_snapshot(self):
        self.flush()
        self.started().snapshot(LONG)

    ask_copies = ask_snapshot

    def do_restart(self):
        self.stop()
        self.commit()

    def do_catch_up(self):
        """The WAL is reset while no replicator follows it."""
        self.stop()
        self.commit()
        self.app.checkpoint("TRUNCATE")
        self.commit()

    def do_resume(self):
        """The process ends between two parts of a large segment."""
        self.store.script("put_part", raising(StoreUnavailable("away")), nth=3, times=None)
        self.commit(200 * KIB)
        with pytest.raises(NotDurable):
            self.started().flush(0.2)
        self.stop()
        self.store.heal()

    def ask_past(self):
        """Merges the segments and prunes the merged ones, as if time had passed."""
        engine = self.started()._engine
        self.steps = retention_worker(
            self.config(),
            self.store,
            CachedSegments(engine.cache, engine.uploader.watermark),
            Metrics(),
            Mailbox(),
            Scheduler(),
            RetentionLimits(),
            created_by="tests",
            pause=lambda _: None,
        )._steps
        for minutes in (20, 40, 120):
            at_ms = time.time_ns() // 1_000_000 + minutes * MINUTE_MS
            self.steps.begin(at_ms)
            while self.steps.step(at_ms):
                pass

    def do_adopt(self):
        self.stop()
        shutil.rmtree(self.directory / self.cache)

    def ask_adopt(self):
        self.flush()
        if len(self.images) - 1 == self.safe:
            self.commit()
        self.flush()

    def do_take_over(self):
        self.stop()
        self.cache, self.take_over = "cache-2", True
        self.commit()

    def ask_restore(self):
        self.check(self.store)

    def ask_history(self):
        assert self._restored(self.store, txid=2)[1] in self.images

    def _restored(self, store, **options):
        self._restores += 1
        output = self.directory / f"out-{self._restores}.db"
        report = restore_with(RECOVERY, store=store, output=output, **options)
        return report, output.read_bytes() if report else b""

    # ------------------------------------------------------------------ invariants

    def check(self, store, *, foreign=False):
        """A restore gives a committed state, none older than the last one reported durable. With a
        ``foreign`` object at the end of the archive the restore stops before it."""
        durable = self.replicator.status().durable_txid if self.replicator else 0
        safe = self.safe
        if foreign and not durable:
            return
        report, data = self._restored(store, **({"txid": durable} if foreign else {}))
        if report is None:
            assert (safe, durable) == (0, 0), "a state that was reported durable is gone"
            return
        assert data in self.images, "a state that was never committed"
        newest = len(self.images) - 1 - self.images[::-1].index(data)
        assert newest >= safe, f"{safe - newest} commits were lost"
        assert report.txid >= durable

    def play(self, fault=None):
        for step in self.STEPS:
            getattr(self, f"do_{step}", lambda: None)()
            before = len(self.record.requests)
            mine = fault if fault is not None and fault.call_site.step == step else None
            if mine is not None:
                mine.arm(self)
            self._ask(getattr(self, f"ask_{step}", self.flush), mine)
            if self.fenced is not None:
                return
            self._note_places(step, self.record.requests[before:])
        self.stop()
        self.check(self.inner)
        assert self.safe == len(self.images) - 1
        self.record.check()

    def _note_places(self, step, requests):
        seen = Counter()
        for request in requests:
            folder = next(name for name in FOLDERS if name in request.key)
            seen[request.call, folder] += 1
            self.call_sites.append(
                CallSite(step, request.call, folder, seen[request.call, folder], request.key)
            )

    def _ask(self, ask, fault):
        """Runs ``ask``; after an error that reports the fault it runs once more."""
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(ask)
            if fault is not None:
                self._watch(answer, fault)
            error = answer.exception(LONG)
        if fault is not None and isinstance(error, ReplicatorError):
            self._judge(error, fault)
            if self.fenced is None:
                self._ask(ask, None)
        elif error is not None:
            raise error

    def _watch(self, answer, fault):
        """Waits until the call returned or the fault was reported; then mends the store."""
        wait_for(lambda: answer.done() or fault.struck.is_set())
        direct = fault.call_site.step in {"past", "restore", "history"}  # no status would report it
        if fault.name == "hang" and direct:
            assert not answer.done()
        else:
            wait_for(lambda: answer.done() or (not direct and self._reported()))
        if fault.name not in ONE_SHOT and answer.done() and answer.exception() is None:
            call_site = fault.call_site
            assert (
                self._reported()
                or (call_site.call, call_site.folder) in OPTIONAL
                or (call_site.step, call_site.call) in UNCOPIED
            ), "silence"
        self.check(self.inner, foreign=fault.name == "taken")
        fault.mend(self)

    def _reported(self):
        refused = self.steps is not None and self.steps.refused
        return refused or (
            self.replicator is not None and self.replicator.status().last_error is not None
        )

    def _judge(self, error, fault):
        """Checks that the error fits the fault. Only a refusal ends a replicator, and only before
        it has objects in the bucket; another start works."""
        self.outcomes[type(error).__name__] += 1
        if isinstance(error, Fenced):
            assert fault.name == "taken", error
            self.fenced = error
            return
        allowed = ALLOWED_ERRORS[fault.name]
        if fault.call_site.step == "past":  # the retention thread reports it and tries again
            allowed += (StoreUnavailable, ObjectMissing)
        assert isinstance(error, allowed), f"{error!r} for {fault.name}"
        if self.replicator is None or self.replicator.failed is not None:
            assert isinstance(error, RefusedError)
            assert error.exit_code == 6
            assert fault.call_site.step in {"begin", "adopt", "take_over"}
            self.outcomes["refused at start"] += 1
            self.stop()


def play(directory, fault=None):
    """Runs the scenario once and removes its directory; returns the scenario."""
    directory.mkdir()
    scenario = StoreScenario(directory)
    try:
        scenario.play(fault)
    except BaseException as error:
        if fault is not None:
            error.add_note(f"{fault.name} at {fault.call_site}")
        raise
    finally:
        if fault is not None:
            fault.mend(scenario)
        scenario.stop()
        scenario.app.close()
    assert fault is None or fault.struck.is_set(), fault.call_site
    shutil.rmtree(directory)
    return scenario
