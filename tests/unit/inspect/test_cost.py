"""replicator.cost: an estimate whose arithmetic can be followed."""

import json

import pytest

from replicator import cli
from replicator.errors import NoBackup
from replicator.inspect import cost
from replicator.inspect.cost import (
    DAYS,
    PRICES,
    Prices,
    Usage,
    Workload,
    bill,
    cost_at,
    litestream_usage,
    observe,
    our_usage,
    own_prices,
)
from replicator.inspect.history import Activity, Generation, History, Snapshot
from replicator.inspect.transactions import Transaction
from replicator.store.address import StoreAddress
from replicator.store.directory import DirectoryStore
from replicator.store.memory import MemoryStore
from tests.helpers.bucket import BucketBuilder

DAY = 86_400_000


def past(*, days, snapshots=1, segment_bytes=1000, last=11):
    return History(
        url="u",
        generations=(Generation("g", 1, last, 1, 5),),
        snapshots=tuple(Snapshot(n + 1, "g", 500, n) for n in range(snapshots)),
        first_txid=1,
        last_txid=last,
        last_commit_ms=None,
        last_stored_ms=0,
        segments=1,
        segment_bytes=segment_bytes,
        merged=0,
        merged_bytes=0,
        snapshot_bytes=500 * snapshots,
        activity=Activity(0, int(days * DAY), ()),
    )


def commits(*times):
    return [Transaction("commit", n, n, at, 1, 1) for n, at in enumerate(times)]


def test_a_workload_counts_windows_with_commits_in_them():
    """Several commits of a second, of half a minute, of an hour are one each."""
    rows = commits(*(at * 1000 for at in (7199, 7199, 7198, 3600, 31, 2, 1)))
    work = observe(rows, past(days=0.1))
    assert (work.observed_days, work.transactions) == (1.0, 7)
    assert work.active == {1: 6, 30: 4, 300: 3, 3600: 2}
    assert work.log_bytes == 7 * 1000 / 10


def test_a_part_of_a_day_is_scaled_up_where_there_is_more():
    """Of an older log only the newest day was looked at; its span counts as what it is."""
    rows = commits(*(n * 1000 for n in reversed(range(0, 43201, 43200))))
    work = observe(rows, past(days=10, snapshots=11))
    assert work.observed_days == 0.5
    assert (work.transactions, work.active[1], work.snapshots) == (4, 4, 1)


def test_nothing_committed_is_no_work():
    """Without commits there are no bytes and only the fixed requests."""
    work = observe([], past(days=3))
    assert (work.transactions, work.log_bytes, work.active[1]) == (0, 0, 0)
    assert our_usage(work, 500).puts == 0
    assert our_usage(work, 500).lists == 0


def test_usage_follows_from_the_schemes():
    """Ours: a PUT a second, a merge, a snapshot. Theirs: the same, three levels, a daily
    snapshot, and listings day and night."""
    work = Workload(1.0, 1000.0, 100.0, {1: 600, 30: 20, 300: 2, 3600: 1}, 2.0, 50)
    ours, theirs = our_usage(work, 1234), litestream_usage(work)
    assert ours == Usage(1234, DAYS * (600 + 2 + 1 + 2), DAYS * 4, DAYS * 3)
    assert theirs.puts == DAYS * (600 + 20 + 2 + 1 + 1)
    assert theirs.lists == DAYS * 24 * 480
    assert theirs.stored_bytes == pytest.approx(2 * 50 * 2.1 + 1.5 * 3 * 210)


@pytest.mark.parametrize(
    ("size", "puts"), [(0, 1), (5 << 20, 1), ((5 << 20) + 1, 5), (500 << 20, 103)]
)
def test_a_large_snapshot_takes_many_requests(size, puts):
    """One for each part, sent or copied, and three around them; a small one takes one PUT."""
    work = Workload(1.0, 0.0, 0.0, {1: 0, 30: 0, 300: 0, 3600: 0}, 2.0, size)
    assert our_usage(work, 0).puts == DAYS * 2 * puts


def test_a_bill_is_bytes_and_requests_times_prices():
    """A bill multiplies stored bytes and requests with their prices."""
    prices = Prices("p", 0.02, 0.005, 0.004, 0.0004, "s")
    found = bill(Usage(5e9, 2000, 1000, 10_000), prices)
    assert found.storage == pytest.approx(0.10)
    assert found.requests == pytest.approx(0.01 + 0.004 + 0.004)
    assert found.total == found.storage + found.requests


def test_prices_of_a_users_own_replace_the_list():
    """What is not given is that of the first store."""
    none = {"gb_month": None, "put": None, "listing": None, "get": None}
    assert tuple(own_prices(**none)) == PRICES
    (own,) = own_prices(**none | {"put": 1.0, "gb_month": 0.5})
    assert (own.gb_month, own.put, own.listing, own.get) == (0.5, 1.0, 0.005, 0.0004)
    (other,) = own_prices(**none | {"listing": 0.0, "get": 0.0})
    assert (other.gb_month, other.put, other.listing, other.get) == (0.023, 0.005, 0.0, 0.0)


def test_only_the_newest_day_is_looked_at():
    """The bytes before it stay unread, and so do those beyond the limit."""
    read = []

    def rows():
        for n in range(10):
            read.append(n)
            yield Transaction("commit", n, n, (20 - n) * DAY // 4 or None, 1, 1)

    assert len(cost._newest_day(rows())) == 5
    assert len(read) == 6
    assert len(cost._newest_day(commits(5, 4, 3), most=2)) == 2
    assert cost._newest_day([Transaction("missing", 1, 2, None, 0, 0)]) == []


@pytest.fixture
def commits_url(tmp_path):
    """The address of a bucket with three commits."""
    for name in ("source", "bucket"):
        (tmp_path / name).mkdir()
    built = BucketBuilder(tmp_path / "source", DirectoryStore(tmp_path / "bucket"))
    for _ in range(3):
        built.insert()
        built.cut()
    built.close()
    return f"file://{tmp_path}/bucket"


def test_a_report_of_a_bucket(commits_url):
    """Stored bytes are those that are there."""
    report = cost_at(StoreAddress.parse(commits_url))
    assert report.ours.stored_bytes == report.log_bytes + report.snapshot_bytes
    assert report.workload.transactions == 3
    assert [ours.store for ours, _ in report.bills] == [prices.name for prices in PRICES]
    with pytest.raises(NoBackup):
        cost.cost(MemoryStore(), "app.db")


def test_the_command_shows_both_schemes(commits_url, capsys):
    """For people and for programs; with own prices there is one bill."""
    assert cli.call(["cost", "--url", commits_url]) == 0
    out = capsys.readouterr().out
    assert "app.db, an estimate" in out
    assert "Litestream" in out
    assert "S3 Standard, us-east-1" in out
    assert cli.call(["cost", "--url", commits_url, "--json", "--price-put", "0.1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["bills"]) == 1
    assert found["bills"][0][0]["store"] == "your prices"
