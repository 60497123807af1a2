"""Random pasts, and what of them must come back: shared by the tests of retention.

The oracle of what can be restored is the planner of restores, given everything there is to know;
the oracle of what must be kept is written here anew, from the rules alone.
"""

import random

from hypothesis import strategies as st

from replicator.archive.catalog import Catalog, known_from
from replicator.errors import GapError, NoBackup
from replicator.format.object_header import parse_metadata
from replicator.model import Retention
from replicator.recovery.plan import plan
from replicator.retention.prune import Pruner, plan_prune
from tests.helpers.retention import DAY, HOUR, KEYS, MINUTE, SECOND, AgedStore, Past

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

stories = st.lists(
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


def random_story(rng):
    return [(rng.choice(STEPS), rng.choice(WAITS)) for _ in range(rng.randint(4, 40))]


def random_rules(rng):
    names = ("every_transaction", "hourly", "daily", "weekly", "monthly")
    return Retention(
        **{name: rng.choice(SPANS) / 1000 for name in names}, snapshots=rng.randint(1, 3)
    )


def lived(directory, story, *, merging=True):
    """A past that went through all steps; merged on the way unless told otherwise."""
    past = Past(directory, AgedStore(), page_size=512)
    keeping = past.keeping(rules=Retention(every_transaction=float("inf")))
    keeping.step(past.now_ms)
    for step, wait in story:
        live(past, step)
        past.wait(wait)
        if merging:
            past.keep(keeping)
    return past


def live(past, step):
    """One thing that happens to a database or its replicator."""
    match step:
        case "insert":
            past.insert(2)
        case "rewrite":
            past.run("UPDATE t SET body = randomblob(400) WHERE id % 2", ROW)
            past.cut()
        case "shrink":
            past.run("DELETE FROM t WHERE id % 3 < 2", ROW)
            past.run("VACUUM")
            past.cut()
        case "batch":
            past.insert(1, cut=False)
            past.wait(SECOND)
            past.insert(3)
        case "squash":
            past.insert(1, cut=False)
            past.insert(1, cut=False)
            past.bucket.squash()
        case "snapshot":
            past.snapshot()
        case "generation":
            past.start_generation()
        case "orphan":
            past.cut()
            past.bucket.snapshot(
                generation=f"00000000-0000-4000-8000-{past.now_ms:012x}", image=past.images[1]
            )
        case "checkpoint":
            past.bucket.checkpoint()


# ---------------------------------------------------------------- what can be restored


def listing_of(store):
    """Everything a restore could learn by reading every object."""
    catalog = Catalog(store, "app.db")
    catalog.load(None, complete=True)
    for item in (*catalog.listing.wal, *catalog.listing.merged):
        catalog.learn(item.key, known_from(parse_metadata(store.head(item.key).metadata)))
    for snapshot in catalog.listing.snapshots:
        if snapshot.generation.startswith("00000000-0000"):
            catalog.exclude(snapshot.key)
    return catalog.listing


def restorable(store, head):
    """Every txid to which a way leads."""
    listing = listing_of(store)
    return {txid for txid in range(1, head + 1) if _leads(listing, txid)}


def _leads(listing, txid):
    try:
        return plan(listing, txid) is not None
    except (GapError, NoBackup):
        return False


def must_stay(past, retention, now_ms, possible):
    """Txids that the rules promise, of those that are possible: within the window and at its
    old edge every one, and the present."""
    edge = now_ms - 1000 * retention.every_transaction
    older = [txid for txid, at_ms in past.times.items() if at_ms < edge]
    since = max(older, default=1)
    return {txid for txid in possible if txid >= since} | ({past.txid} & possible)


def promised(past, retention, now_ms, possible, decision):
    points = {point.txid for point in decision.points}
    window = {txid for txid in possible if txid >= decision.window_from}
    return must_stay(past, retention, now_ms, possible) | window | points


def periods(past, retention, now_ms, txids):
    """Which hours and days (UTC) within the rules one of ``txids`` lies in."""
    found = set()
    for name, span, length in (("hour", retention.hourly, HOUR), ("day", retention.daily, DAY)):
        found |= {
            (name, past.times[txid] // length)
            for txid in txids
            if txid in past.times and past.times[txid] // length * length >= now_ms - 1000 * span
        }
    return found


class Pruning:
    """A prune of a past that stops after each deletion."""

    def __init__(self, past, retention, grace_ms):
        self.store, self.rules, self.deleted = past.store, retention, 0
        self.plan = plan_prune(past.store, KEYS, retention, past.now_ms, grace_ms=grace_ms)
        self.left = list(self.plan.decision.deletions)
        self._pruner = Pruner(past.store, KEYS)

    def step(self):
        if self.left:
            verdict = self.left.pop(0)
            self.deleted += len(self._pruner.apply(self.plan, [verdict]).deleted)

    def all(self):
        while self.left:
            self.step()


def some(rng: random.Random, values, count):
    values = sorted(values)
    return rng.sample(values, min(count, len(values)))
