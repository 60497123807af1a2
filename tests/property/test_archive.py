"""One model of an archive, against brute force over sets: see tests/helpers/oracle_archive.py."""

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replicator.archive.index import OPEN_END, Index, PinnedPoint, WalObject
from replicator.archive.reachable import Ways, fewest_objects, judge, restorable, trust
from replicator.errors import GapError, NoBackup
from replicator.model import Retention
from replicator.recovery.plan import newest_reachable, plan
from replicator.retention.policy import decide
from tests.helpers import oracle_archive as oracle
from tests.helpers.oracle_archive import archives
from tests.helpers.retention import DAY, HOUR, MINUTE
from tests.plugins.scoreboard import effort

MANY = settings(
    max_examples=effort(200, 20_000), suppress_health_check=list(HealthCheck), deadline=None
)
TIERS = ("every_transaction", "hourly", "daily", "weekly", "monthly")
SPANS = (0, 10 * MINUTE, DAY, 3 * DAY, 30 * DAY)
rules = st.builds(
    lambda spans, snapshots: Retention(
        **{name: span / 1000 for name, span in zip(TIERS, spans, strict=True)},
        snapshots=snapshots,
    ),
    st.tuples(*[st.sampled_from(SPANS)] * 5),
    st.integers(1, 2),
)


def txids(ranges):
    return {txid for first, last in ranges for txid in range(first, last + 1)}


def by_key(items):
    return sorted(item.key for item in items)


# ------------------------------------------------------------------------------------ index


@MANY
@given(archives())
def test_an_end_that_nobody_asked_is_never_guessed_too_short(archive):
    """A guess too long is corrected when the object is read, one too short never would be. Every
    other fact is the object's own."""
    known = archive.known.by_key
    for item in archive.listed.wal:
        assert item.last == known[item.key].last or (item.guessed and item.last > item.first)
        assert item.last >= known[item.key].last
    assert archive.known.head == max(
        (item.last for item in archive.log),
        default=max((item.txid for item in archive.snapshots), default=0),
    )


@MANY
@given(archives(), st.integers(1, 40))
def test_objects_that_hold_a_transaction(archive, txid):
    """Found by bisection, as by looking at each; finest first."""
    found = archive.known.covering(txid)
    assert by_key(found) == by_key(i for i in archive.log if i.first <= txid <= i.last)
    widths = [item.last - item.first for item in found]
    assert widths == sorted(widths)
    assert by_key(archive.known.beginning(txid)) == by_key(
        item for item in archive.log if item.first == txid
    )
    listed = archive.listed
    between = {item.key for item in listed.between(txid, txid + 3)}
    assert between >= {i.key for i in listed.wal if i.first <= txid + 3 and i.last >= txid}


# ------------------------------------------------------------------------------------ trust


def settled(archive, snapshot):
    """The judgement of one who asks the objects that decide, and which those were."""
    index, asked = archive.listed, []
    while True:
        judgement = judge(index, snapshot, snapshot.facts.checksum_after)
        if judgement.settled:
            return judgement.trusted, asked
        asked.append(judgement.by.key)
        index = index.with_objects([archive.answer(judgement.by)])


@MANY
@given(archives())
def test_a_snapshot_is_trusted_for_the_objects_around_it(archive):
    """Whatever was asked before; three questions at most: about the finest object by name, one
    that holds the txid after all, and the object right behind."""
    for snapshot in archive.snapshots:
        trusted, asked = settled(archive, snapshot)
        assert trusted == oracle.trusted(archive, snapshot)
        assert len(asked) <= 3


def settle(archive, index):
    """Ask as retention does: the newest segment, then what decides about each generation."""
    newest, asked = index.newest_segment, 0
    if newest is not None:
        index = index.with_objects([archive.answer(newest)])
    while ask := trust(index).ask:
        asked += 1
        index = index.with_objects([archive.answer(ask[0])])
    return index, asked


@MANY
@given(archives())
def test_retention_trusts_the_snapshots_that_a_restore_begins_with(archive):
    """With one question a generation, and two where a guessed end was wrong. A snapshot that
    stands in a hole is the only one it may trust without any object to confirm it."""
    index, asked = settle(archive, archive.listed)
    generations = {item.generation for item in archive.snapshots}
    assert asked <= 2 * len(generations)
    known = trust(archive.known)
    assert {item.key for item in trust(index).trusted} == {item.key for item in known.trusted}
    assert by_key(known.trusted) == by_key(
        item for item in archive.snapshots if oracle.trusted(archive, item)
    )
    assert known.ask == ()


# ------------------------------------------------------------------------------------- ways


@MANY
@given(archives())
def test_every_transaction_that_can_be_restored_and_no_other(archive):
    """The ranges of verify and of history, where every object was asked."""
    assert txids(restorable(archive.known)) == oracle.restorable(archive)


def restore(archive, goal):
    """The plan that a restore ends with, asking as it goes; None: the transaction is out of
    reach."""
    index = archive.listed
    while True:
        try:
            found = plan(index, goal)
        except (GapError, NoBackup):
            return None
        snapshot = next(each for each in archive.snapshots if each.key == found.snapshot.key)
        if not settled(archive, snapshot)[0]:
            index = Index.of(i for i in index.by_key.values() if i.key != snapshot.key)
        elif all(item.facts for item in found.segments):
            return found
        else:
            index = index.with_objects(archive.answer(item) for item in found.segments)


@MANY
@given(archives(), st.data())
def test_a_restore_finds_a_way_whenever_there_is_one(archive, data):
    """With the fewest objects from its snapshot on, of these with an end rather than a cut, and
    from the names alone but for the objects it reads."""
    goal = data.draw(st.integers(1, archive.newest_txid + 2))
    found = restore(archive, goal)
    assert (found is not None) == (goal in oracle.restorable(archive))
    if found is not None:
        assert oracle.follow_one_another([found.snapshot, *found.segments], goal)
        best = oracle.cheapest(archive, [found.snapshot], goal, lambda item: (1, item.size))
        assert found.objects == best[0]
        ended = oracle.cheapest(
            archive.without({i.key for i in archive.log if i.first <= goal < i.last}),
            [found.snapshot],
            goal,
            lambda item: (1, item.size),
        )
        if ended is not None and ended[0] == best[0]:
            assert found.size == ended[1]


@MANY
@given(archives(), st.data())
def test_the_furthest_transaction_below_a_limit(archive, data):
    """With --allow-older: of all snapshots, trusted or not, the one that leads furthest."""
    limit = data.draw(st.one_of(st.none(), st.integers(1, archive.newest_txid + 2)))
    reach = {
        txid
        for txid in oracle.restorable(archive, archive.snapshots)
        if limit is None or txid <= limit
    }
    try:
        found = newest_reachable(archive.known, limit)
    except (GapError, NoBackup):
        assert not reach or not archive.log
    else:
        assert found.txid == max(reach)


@MANY
@given(archives(), st.data())
def test_the_way_that_adds_the_fewest_bytes(archive, data):
    """To any transaction, beside anything that is kept already, ending with any of some keys."""
    rng = data.draw(st.randoms(use_true_random=False))
    goal = rng.randint(1, archive.newest_txid)
    every = [*archive.log, *archive.snapshots]
    kept = {item.key for item in every if rng.randint(0, 2) == 0}

    def cost(item):
        return 0 if item.key in kept else item.size, 1

    index = archive.known
    snapshots = trust(index).trusted
    step = Ways(snapshots, index.wal, cost).to(goal)
    best = oracle.cheapest(archive, snapshots, goal, cost)
    assert (step is None) == (best is None)
    if step is not None:
        assert step.cost[0] == best[0]
        assert step.cost[0] == sum(cost(item)[0] for item in step.way)
        assert oracle.follow_one_another(step.way, goal)
    ends = {item.key for item in every if rng.randint(0, 1)}
    ended = Ways(snapshots, index.wal, cost).to(goal, ends)
    assert ended is None or (ended.way[-1].key in ends and ended.cost >= (best[0], 0))
    assert Ways(snapshots, index.wal, fewest_objects).furthest(OPEN_END) == max(
        oracle.restorable(archive, snapshots), default=0
    )


# -------------------------------------------------------------------------------- retention


def decided(archive, pins, retention, now_ms, grace_ms):
    """The decision of one who asks what it is unsure of."""
    index, _ = settle(archive, archive.listed)
    while True:
        decision = decide(index, pins, retention, now_ms, grace_ms=grace_ms)
        if not decision.unsure:
            return decision
        index, _ = settle(
            archive, index.with_objects(archive.answer(item) for item in decision.unsure)
        )


@MANY
@given(
    archives(),
    rules,
    st.sampled_from([0, HOUR, 2 * DAY, 40 * DAY]),
    st.sampled_from([0, HOUR]),
    st.lists(st.integers(1, 20), max_size=2),
)
def test_retention_deletes_nothing_that_a_restore_would_need(
    archive, retention, later_ms, grace_ms, pinned
):
    """Whatever was asked before: after each single deletion the window, the points of the rules
    and the pinned points can be restored as before. A pin is given up only where no way leads."""
    before = oracle.restorable(archive)
    pins = [PinnedPoint(txid) for txid in sorted(set(pinned))]
    decision = decided(archive, pins, retention, archive.now_ms + later_ms, grace_ms)
    promised = {txid for txid in before if txid >= decision.window_from}
    promised |= {point.txid for point in decision.points} & before
    assert {point.txid for point in pins} & before <= promised
    gone = set()
    for verdict in decision.deletions:
        gone.add(verdict.key)
        left = archive.without(gone)
        assert promised <= oracle.restorable(left)
        assert all(restore(left, txid) is not None for txid in some(promised))


def some(values):
    values = sorted(values)
    return random.Random(len(values)).sample(values, min(len(values), 2))


def test_the_archives_hold_all_that_the_properties_speak_of():
    """Among a few hundred."""
    seen = set()

    @settings(max_examples=300, database=None, deadline=None)
    @given(archives())
    def look(archive):
        log, index = archive.log, archive.known
        seen.update(item.kind for item in log)
        seen.update(("level", item.level) for item in log)
        seen.update(("divisible", item.divisible) for item in log if isinstance(item, WalObject))
        if len({item.generation for item in log}) > 1:
            seen.add("generations")
        if any(item.first < s.txid < item.last for item in log for s in archive.snapshots):
            seen.add("a snapshot inside an object")
        if trust(index).refused:
            seen.add("refused")
        if any(
            a.first < b.first <= a.last < b.last for a in log for b in log if a.level and b.level
        ):
            seen.add("overlapping merges")
        if any(a.last + 1 < b.first for a, b in zip(index.wal, index.wal[1:], strict=False)):
            seen.add("a hole")

    look()
    assert len(seen) == 5 + 3 + 2 + 5, seen
