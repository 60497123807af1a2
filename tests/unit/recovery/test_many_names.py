"""A bucket full of made-up objects: the work of a restore grows no faster than their number."""

import uuid

import pytest

from replicator import restore
from replicator.archive.index import Index, Overlapping
from replicator.errors import DamageError, ReplicatorError
from replicator.inspect.history import history
from tests.helpers.calls import counted_calls
from tests.helpers.counting import CountingStore
from tests.helpers.errors import raises
from tests.helpers.restores import restore_with

MANY = 300
MOST_PLANS = 60  # builds of an index; without the limit, one or more for each object

NAMES = {
    "foreign": lambda keys, generation, n: f"{keys.wal_dir}junk{n}",
    "later snapshots": lambda keys, generation, n: keys.snapshot(1000 + n, str(uuid.uuid4())),
    "snapshots of the newest state": lambda keys, generation, n: keys.snapshot(
        3, str(uuid.uuid4())
    ),
    "snapshots of the generation": lambda keys, generation, n: keys.snapshot(9 + n, generation),
    "segments after a gap": lambda keys, generation, n: keys.wal(1000 + n),
    "segments that follow": lambda keys, generation, n: keys.wal(4 + n),
    "merges from the start": lambda keys, generation, n: keys.merged(2, 1, 4 + n),
}


@pytest.fixture
def crowded(empty_bucket):
    """Three transactions, and a function that adds objects with made-up names."""
    empty_bucket.insert(3)
    empty_bucket.cut()
    empty_bucket.insert(3)
    empty_bucket.cut()

    def fill(name):
        for n in range(MANY):
            key = NAMES[name](empty_bucket.keys, empty_bucket.generation, n)
            empty_bucket.store.put(key, b"x" * 300)
        return empty_bucket

    return fill


@pytest.mark.parametrize("name", NAMES)
def test_made_up_names_cost_a_few_requests_each(crowded, name, tmp_path):
    """The newest state that can be proved is found with a few plans, whatever the names claim."""
    built = crowded(name)
    store = CountingStore(built.store)
    with counted_calls(Index.__post_init__) as plans:
        report = restore(store=store, prefix="app.db", output=tmp_path / "o", allow_older=True)
    assert (report.txid, report.output) == (built.txid, str(tmp_path / "o"))
    assert (tmp_path / "o").read_bytes() == built.images[built.txid]
    assert len(plans) <= MOST_PLANS
    assert len(store.calls) <= 10 * MANY


@pytest.mark.parametrize("name", ["segments after a gap", "segments that follow"])
def test_a_plan_states_the_loss_that_a_restore_would_refuse(crowded, name, tmp_path):
    """Names that claim later transactions: without --allow-older both refuse, with it both
    report the number of transactions."""
    built = crowded(name)
    for dry_run in (True, False):
        with pytest.raises(DamageError):
            restore(store=built.store, prefix="app.db", output=tmp_path / "o", dry_run=dry_run)
    plan, done = (
        restore(
            store=built.store,
            prefix="app.db",
            output=tmp_path / "o",
            dry_run=dry_run,
            allow_older=True,
        )
        for dry_run in (True, False)
    )
    assert plan.lost_txids == done.lost_txids > 0
    assert set(plan.avoided) == set(done.avoided)


def test_names_that_overlap_without_end(crowded, tmp_path):
    """Merges that claim all the same transactions are named, in place of a search that ends
    never."""
    built = crowded("merges from the start")
    with raises(Overlapping, "overlapping"):
        history(built.store, "app.db", url="memory://")


def test_many_damaged_snapshots_do_not_end_a_restore(empty_bucket, tmp_path):
    """Each is intact at both ends. The way around any number of them is found, as long as the time
    permits."""
    bucket = empty_bucket
    bucket.insert(30, 3000)
    bucket.cut()
    bucket.snapshot()
    for _ in range(7):
        bucket.insert(30, 3000)
        bucket.cut()
        body = bytearray(bucket.store.get(key := bucket.snapshot()))
        assert len(body) > 1 << 16
        body[len(body) // 2] ^= 1
        bucket.store.put(key, bytes(body), if_absent=False)
    limits = {"one_by_one": 2, "most_useless": 4}
    output = tmp_path / "o"
    report = restore_with(limits, store=bucket.store, output=output, allow_older=True)
    assert report.txid == bucket.txid
    assert output.read_bytes() == bucket.images[bucket.txid]
    assert len(report.avoided) == 7


def test_objects_that_prove_useless_while_they_are_read(empty_bucket, tmp_path):
    """Merges that are intact at both ends and damaged in between: after a few the restore ends,
    and names one."""
    bucket = empty_bucket
    for _ in range(2):
        bucket.insert(1, 1)
        bucket.cut()
    bucket.insert(30, 3000)
    bucket.cut()
    for level in range(1, 9):
        key = bucket.merge(2, bucket.txid, level=level)
        body = bytearray(bucket.store.get(key))
        assert len(body) > 1 << 16
        body[len(body) // 2] ^= 1
        bucket.store.put(key, bytes(body), if_absent=False)
    for key in [key for key in bucket.objects() if "/wal/" in key][1:]:
        bucket.store.delete(key)
    limits = {"one_by_one": 2, "most_useless": 5, "useless_patience": 0.0}
    with pytest.raises(ReplicatorError) as caught:
        restore_with(limits, store=bucket.store, output=tmp_path / "o", allow_older=True)
    assert caught.value.code == "too_many_damaged"
    assert "/merged/" in caught.value.key
