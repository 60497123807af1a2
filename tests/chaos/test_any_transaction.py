"""Any transaction, by number and by time, over a history with everything in it.

Real replicators follow a real database on a simulated clock, with half a minute between commits:
VACUUM, shrinking, gaps with catch-ups, take-overs by another host, snapshots, and merges at every
level whose segments are pruned. The test records each state at its commit; every restore
afterwards must give that state, page by page.
"""

import hashlib
import random
import shutil
from datetime import UTC, datetime

import pytest

from replicator import restore
from replicator.archive.index import WalObject
from replicator.archive.listing import list_merges
from replicator.engine.in_process import InProcessReplicator
from replicator.errors import GapError
from replicator.format.object_header import parse_metadata
from replicator.metrics import Metrics
from replicator.model import Retention
from replicator.retention.limits import RetentionLimits
from replicator.retention.worker import RetentionSteps
from replicator.system.mailbox import Mailbox
from tests.helpers.replication import App, config_for
from tests.helpers.retention import KEYS, MINUTE, AgedStore, GivenSegments
from tests.plugins.scoreboard import effort

LONG = 60.0
COMMITS = effort(160, 1500)
TARGETS = effort(60, 1000)
APART_MS = 31_000  # between two commits


class RecordedHistory:
    """One archive, written by several hosts in turn, and its state after each flush."""

    def __init__(self, directory, rng, store):
        self.directory, self.rng, self.store = directory, rng, store
        self.states = []  # (txid, commit time in ms, SHA-256 of the image)
        self.hosts = 0
        self.reopen(directory / "app.db", take_over=False)
        self.events = dict.fromkeys(("vacuum", "shrink", "gap", "take-over", "restart"), 0)
        self.steps = RetentionSteps(
            store=self.store,
            keys=KEYS,
            rules=Retention(),
            segments=GivenSegments(self.appended),
            metrics=Metrics(),
            mailbox=Mailbox(),
            limits=RetentionLimits(),
            created_by="tests",
            level=3,
        )

    def reopen(self, path, *, take_over):
        self.path = path
        self.app = App(path, page_size=1024)
        self.follow(take_over=take_over)

    def follow(self, *, take_over=False):
        self.replicator = InProcessReplicator(
            config_for(
                self.path,
                prefix="app.db",
                url="s3://bucket",
                take_over=take_over,
                segment_max_bytes=1 << 20,
            ),
            store=self.store,
        )
        self.replicator.start()
        self.replicator.flush(LONG)

    def commit(self):
        """Commits, flushes and records one transaction; then the clock advances."""
        kind = self.rng.random()
        if kind < 0.7:
            self.app.insert(self.rng.randint(1, 5), self.rng.choice((30, 300, 2000)))
        elif kind < 0.9:
            self.app.run("UPDATE t SET body = randomblob(200) WHERE id % 5 = 1")
        else:
            self.app.run("DELETE FROM t WHERE id % 3 = 0")
        self.record()

    def record(self):
        position = self.replicator.flush(LONG)
        digest = hashlib.sha256(self.app.image()).hexdigest()
        if not self.states or self.states[-1][0] != position.txid:
            self.states.append((position.txid, self.store.now_ms, digest))
        self.store.now_ms += APART_MS

    def event(self):
        kind = self.rng.choice(list(self.events))
        self.events[kind] += 1
        getattr(self, kind.replace("-", "_"))()

    def vacuum(self):
        self.app.run("VACUUM")
        self.record()

    def shrink(self):
        self.app.run("DELETE FROM t WHERE id > 3")
        self.record()
        self.vacuum()

    def restart(self):
        self.replicator.stop()
        self.follow()

    def gap(self):
        """Commits without a replicator, and a truncated WAL."""
        self.replicator.stop()
        self.app.insert(3, 500)
        self.app.insert(3, 500)
        self.app.checkpoint("TRUNCATE")
        self.follow()
        self.record()

    def take_over(self):
        """Another host takes over with a copy of the database that lacks the newest commit."""
        self.hosts += 1
        there = self.directory / f"host-{self.hosts}"
        there.mkdir()
        self.app.checkpoint("PASSIVE")
        shutil.copy(self.path, there / "app.db")
        self.commit()
        self.replicator.stop()
        self.app.close()
        self.reopen(there / "app.db", take_over=True)
        self.record()

    def appended(self, since):
        found = []
        for info in self.store.list(KEYS.wal_dir, start_after=KEYS.wal(since)):
            facts = parse_metadata(self.store.head(info.key).metadata)
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

    def keep(self):
        """Runs the retention work that a running replicator would have done by now."""
        self.steps.step(self.store.now_ms)
        while self.steps.step(self.store.now_ms):
            pass

    def end(self):
        self.replicator.stop()
        self.app.close()
        self.store.now_ms += 60 * MINUTE
        self.keep()
        self.store.now_ms += 20 * MINUTE
        self.keep()

    def levels(self):
        return {merge.level for merge in list_merges(self.store, KEYS)}


@pytest.fixture
def history(tmp_path, set_clock, seed):
    """A history in which all code reads the clock of the store."""
    store = AgedStore()
    set_clock(lambda: store.now_ms)
    history = RecordedHistory(tmp_path, random.Random(seed), store)
    yield history
    history.replicator.stop()


def text(ms):
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


def restored(history, output, **target):
    return restore(store=history.store, prefix="app.db", output=output, overwrite=True, **target)


@pytest.mark.timeout(120 + COMMITS)
def test_any_transaction(history, tmp_path, seed, scoreboard):
    """Restores of random targets by txid and by time equal the recorded states; a target outside
    of the window is an error."""
    rng = random.Random(seed)
    for number in range(COMMITS):
        history.commit()
        if number % (COMMITS // 20) == COMMITS // 40:
            history.event()
        if number % 20 == 19:
            history.keep()
    history.end()
    assert {1, 2} <= history.levels()
    output = tmp_path / "out.db"
    for number in range(TARGETS):
        at = rng.randrange(len(history.states))
        txid, when, digest = history.states[at]
        if number % 2:
            following = (
                history.states[at + 1][1] if at + 1 < len(history.states) else when + APART_MS
            )
            wish = {"timestamp": text(rng.choice((when, rng.randrange(when, following))))}
        else:
            wish = {"txid": txid}
        report = restore(
            store=history.store, prefix="app.db", output=output, overwrite=True, **wish
        )
        assert report.txid == txid, wish
        assert hashlib.sha256(output.read_bytes()).hexdigest() == digest, wish
    for wish in ({"txid": history.states[-1][0] + 10}, {"timestamp": "2001-01-01"}):
        with pytest.raises(GapError):
            restored(history, output, **wish)
    objects = len(list(history.store.list("app.db/wal/")))
    scoreboard(
        "any transaction, by txid and by time",
        f"{TARGETS} targets over {len(history.states)} commits, {history.events}, merges at "
        f"levels {sorted(history.levels())}, {objects} segments left: all page-exact",
    )
