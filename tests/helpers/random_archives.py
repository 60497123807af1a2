"""Random archives and the transactions that must stay restorable, for the tests of retention.

The oracle of restorable transactions is the planner of restores with complete facts. The oracle
of transactions that must stay is written here again, from the rules alone.
"""

import random

from hypothesis import strategies as st

from replicator.archive.facts import FactsReader
from replicator.archive.index import Index, WalObject
from replicator.archive.listing import list_all
from replicator.errors import GapError, NoBackup
from replicator.model import Retention
from replicator.recovery.plan import plan
from replicator.retention.prune import Pruner, plan_prune
from tests.helpers.retention import DAY, HOUR, KEYS, MINUTE, SECOND, AgedArchive, AgedStore

WAITS = (SECOND, 20 * SECOND, 4 * MINUTE, 20 * MINUTE, HOUR, 5 * HOUR, DAY, 3 * DAY, 9 * DAY)
SPANS = (0, HOUR, 5 * HOUR, DAY, 4 * DAY, 12 * DAY, 40 * DAY, 10**9 * DAY)
STEPS = (
    "insert",
    "insert",
    "insert",
    "insert",
    "rewrite",
    "shrink",
    "batch",
    "squash",
    "snapshot",
    "snapshot",
    "generation",
    "orphan",
    "checkpoint",
)
ROW = "INSERT INTO t(body) VALUES (randomblob(300))"

step_lists = st.lists(
    st.tuples(st.sampled_from(STEPS), st.sampled_from(WAITS)), min_size=4, max_size=30
)
rules = st.builds(
    lambda spans, snapshots: Retention(
        **{
            name: span / 1000
            for name, span in zip(
                ("every_transaction", "hourly", "daily", "weekly", "monthly"), spans, strict=True
            )
        },
        snapshots=snapshots,
    ),
    st.tuples(*[st.sampled_from(SPANS)] * 5),
    st.integers(1, 3),
)


def random_steps(rng):
    return [(rng.choice(STEPS), rng.choice(WAITS)) for _ in range(rng.randint(4, 40))]


def random_rules(rng):
    names = ("every_transaction", "hourly", "daily", "weekly", "monthly")
    return Retention(
        **{name: rng.choice(SPANS) / 1000 for name in names}, snapshots=rng.randint(1, 3)
    )


def grown_archive(directory, steps, *, merging=True):
    """An archive after all steps, merged on the way unless ``merging`` is false."""
    archive = AgedArchive(directory, AgedStore(), page_size=512)
    retention = archive.retention_steps(rules=Retention(every_transaction=float("inf")))
    retention.step(archive.now_ms)
    for step, wait in steps:
        apply_step(archive, step)
        archive.wait(wait)
        if merging:
            archive.keep(retention)
    return archive


def apply_step(archive, step):
    """Applies one step of a database or its replicator."""
    match step:
        case "insert":
            archive.insert(2)
        case "rewrite":
            archive.run("UPDATE t SET body = randomblob(400) WHERE id % 2", ROW)
            archive.cut()
        case "shrink":
            archive.run("DELETE FROM t WHERE id % 3 < 2", ROW)
            archive.run("VACUUM")
            archive.cut()
        case "batch":
            archive.insert(1, cut=False)
            archive.wait(SECOND)
            archive.insert(3)
        case "squash":
            archive.insert(1, cut=False)
            archive.insert(1, cut=False)
            archive.bucket.squash()
        case "snapshot":
            archive.snapshot()
        case "generation":
            archive.start_generation()
        case "orphan":
            archive.cut()
            archive.bucket.snapshot(
                generation=f"00000000-0000-4000-8000-{archive.now_ms:012x}", image=archive.images[1]
            )
        case "checkpoint":
            archive.bucket.checkpoint()


# ---------------------------------------------------------------- restorable transactions


def index_of(store):
    """Everything a restore could learn by reading every object."""
    reader = FactsReader(store)
    return Index.of(
        reader.ask(item) if isinstance(item, WalObject) else item
        for item in list_all(store, KEYS)
        if isinstance(item, WalObject) or not item.generation.startswith("00000000-0000")
    )


def restorable(store, head):
    """Every txid to which a way leads."""
    index = index_of(store)
    return {txid for txid in range(1, head + 1) if _leads(index, txid)}


def _leads(index, txid):
    try:
        return plan(index, txid) is not None
    except (GapError, NoBackup):
        return False


def must_stay(archive, retention, now_ms, possible):
    """The possible txids that the rules promise: all within the window and at its old edge, and the
    newest."""
    edge = now_ms - 1000 * retention.every_transaction
    older = [txid for txid, at_ms in archive.times.items() if at_ms < edge]
    since = max(older, default=1)
    return {txid for txid in possible if txid >= since} | ({archive.txid} & possible)


def promised(archive, retention, now_ms, possible, decision):
    points = {point.txid for point in decision.points}
    window = {txid for txid in possible if txid >= decision.window_from}
    return must_stay(archive, retention, now_ms, possible) | window | points


def periods(archive, retention, now_ms, txids):
    """The hours and days (UTC) within the rules that contain one of ``txids``."""
    found = set()
    for name, span, length in (("hour", retention.hourly, HOUR), ("day", retention.daily, DAY)):
        found |= {
            (name, archive.times[txid] // length)
            for txid in txids
            if txid in archive.times
            and archive.times[txid] // length * length >= now_ms - 1000 * span
        }
    return found


class SteppedPrune:
    """A prune that stops after each deletion."""

    def __init__(self, archive, retention, grace_ms):
        self.store, self.rules, self.deleted = archive.store, retention, 0
        self.plan = plan_prune(archive.store, KEYS, retention, archive.now_ms, grace_ms=grace_ms)
        self.left = list(self.plan.decision.deletions)
        self._pruner = Pruner(archive.store, KEYS)

    def step(self):
        if self.left:
            verdict = self.left.pop(0)
            self.deleted += len(self._pruner.apply(self.plan, [verdict]).deleted)

    def all(self):
        while self.left:
            self.step()


def sample(rng: random.Random, values, count):
    values = sorted(values)
    return rng.sample(values, min(count, len(values)))
