"""replicator.inspect.transactions and the timeline: the past, commit by commit and at a glance."""

import json

import pytest

from replicator import cli
from replicator.archive.records import DAMAGED, PROVEN, REPAIRED, ProofRecord, add_record
from replicator.archive.timespec import to_ms
from replicator.cli import timeline
from replicator.errors import DamageError, NoBackup
from replicator.inspect.history import Activity, Generation, History, Snapshot, history
from replicator.inspect.transactions import Transaction, transactions
from replicator.store.directory import DirectoryStore
from replicator.store.memory import MemoryStore
from tests.helpers.bucket import BucketBuilder, commit_ms
from tests.helpers.errors import raises

BEGAN = 1_700_000_000_500


def listed(bucket):
    return list(transactions(bucket.store, "app.db"))


def test_every_commit_with_its_time_and_size_newest_first(bucket):
    """Txids without a hole, times as the objects have them, bytes as the log had them."""
    rows = listed(bucket)
    assert [row.txid for row in rows] == list(range(bucket.txid, 0, -1))
    commits = [row for row in rows if row.kind == "commit"]
    assert [row.kind for row in rows if row.kind != "commit"] == ["start", "start"]
    for row in commits:
        assert row.committed_ms == commit_ms(row.txid)
        assert row.bytes == row.frames * (bucket.page_size + 24) > 0


def test_a_merge_lists_as_its_sources_did(empty_bucket):
    """Beside them and in their place; whatever stands twice is listed once."""
    for _ in range(3):
        empty_bucket.insert()
        empty_bucket.insert()
        empty_bucket.cut()
    before = listed(empty_bucket)
    empty_bucket.merge(2, 7)
    assert listed(empty_bucket) == before
    for key in [empty_bucket.keys.wal(n) for n in (2, 4)]:
        empty_bucket.store.delete(key)
    assert listed(empty_bucket) == before


def test_steps_catch_ups_and_holes_are_told(empty_bucket):
    """A step of several transactions, and missing ones, in their places."""
    for _ in range(3):
        empty_bucket.insert()
        empty_bucket.insert()
        empty_bucket.cut()
    empty_bucket.merge_newest(2, 5, drop=True)
    rows = listed(empty_bucket)
    assert [(row.kind, row.first_txid, row.txid) for row in rows] == [
        ("commit", 7, 7),
        ("commit", 6, 6),
        ("step", 2, 5),
        ("start", 1, 1),
    ]
    empty_bucket.store.delete(empty_bucket.keys.merged(2, 2, 5))
    assert listed(empty_bucket)[2] == Transaction("missing", 2, 5, None, 0, 0)


def test_nothing_and_damage_are_errors(bucket):
    """An empty store is NoBackup, a damaged object DamageError."""
    with pytest.raises(NoBackup):
        list(transactions(MemoryStore(), "app.db"))
    key = bucket.keys.wal(16)
    bucket.store.put(key, bucket.store.get(key)[:-5], if_absent=False)
    with pytest.raises(DamageError):
        listed(bucket)


# ------------------------------------------------------------------------------- timeline


def past(**changes):
    values = {
        "url": "u",
        "generations": (Generation("a", 1, 9, 1, 10), Generation("b", 10, 20, 1, 10)),
        "snapshots": (Snapshot(1, "a", 10, 0), Snapshot(10, "b", 10, 500)),
        "first_txid": 1,
        "last_txid": 20,
        "last_commit_ms": None,
        "last_stored_ms": 1000,
        "segments": 2,
        "segment_bytes": 20,
        "merged": 0,
        "merged_bytes": 0,
        "snapshot_bytes": 20,
        "activity": Activity(0, 1000, (10, 0, 0, 80)),
        "proofs": (
            ProofRecord("k", 250, PROVEN, 5),
            ProofRecord("k", 750, DAMAGED, 9),
            ProofRecord("k", 999, REPAIRED, 10),
            ProofRecord("k", 999, "thinned", 10),
        ),
    }
    return History(**values | changes)


def test_the_picture_shows_everything_where_it_happened():
    """Time from left to right, one row a kind of thing."""
    lines = timeline.draw(past(), 52)
    assert all(len(line) <= 52 for line in lines)
    rows = {line[:12].strip(): line[12:] for line in lines[1:]}
    assert lines[0].startswith("1970-01-01T00:00Z")
    assert lines[0].endswith("1970-01-01T00:00Z")
    assert rows["segments"] == "▁" * 10 + " " * 20 + "█" * 10
    assert [at for at, mark in enumerate(rows["generation"]) if mark == "├"] == [0, 20]
    assert [at for at, mark in enumerate(rows["snapshot"]) if mark == "▲"] == [0, 20]
    assert rows["verified"].index("✓") == 10
    assert rows["failed"].index("!") == 30
    assert rows["repaired"].index("+") == 39


def test_the_edges_of_an_activity_read_back():
    """The picture of a history shows the minute in which it begins, and the one of its end."""
    edges = timeline.draw(past(activity=Activity(BEGAN, BEGAN + 600_000, (1, 2))), 80)[0].split()
    assert [to_ms(each, 0) for each in edges] == [
        at // 60_000 * 60_000 for at in (BEGAN, BEGAN + 600_000)
    ]


def test_rows_without_anything_are_left_out():
    """And a past of no length is no picture; the width has its bounds."""
    names = [line[:12].strip() for line in timeline.draw(past(proofs=()), 80)[1:]]
    assert names == ["segments", "generation", "snapshot"]
    assert timeline.draw(past(activity=Activity(5, 5, ())), 80) == []
    quiet = timeline.draw(past(activity=Activity(0, 9, (0, 0))), 80)
    assert "segments" not in [line[:12].strip() for line in quiet]
    assert max(map(len, timeline.draw(past(), 500))) == timeline.MOST_WIDTH
    assert max(map(len, timeline.draw(past(), 5))) == timeline.LEAST_WIDTH


def test_history_knows_proofs_and_when_the_log_was_busy(bucket):
    """From the same listing as everything else."""
    add_record(bucket.store, bucket.keys, PROVEN, 5, 1000, {})
    add_record(bucket.store, bucket.keys, PROVEN, 9, 2000, {})
    add_record(bucket.store, bucket.keys, DAMAGED, 9, 3000, {})
    found = history(bucket.store, "app.db", url="u")
    assert [proof.txid for proof in found.proofs] == [5, 9, 9]
    assert found.proven.txid == 9
    assert sum(found.activity.bytes) == found.segment_bytes + found.merged_bytes
    assert past(proofs=()).proven is None


@pytest.fixture
def merged_url(tmp_path):
    """The address of a bucket with three commits, of which two are merged."""
    for name in ("source", "bucket"):
        (tmp_path / name).mkdir()
    built = BucketBuilder(tmp_path / "source", DirectoryStore(tmp_path / "bucket"))
    for _ in range(3):
        built.insert()
        built.cut()
    built.merge_newest(2, 3, drop=True)
    built.close()
    return f"file://{tmp_path}/bucket"


def run(capsys, *arguments):
    code = cli.call([str(each) for each in arguments])
    return code, capsys.readouterr().out


def test_the_command_lists_commits(merged_url, capsys):
    """As many as asked for; JSON has them all the same."""
    code, out = run(capsys, "history", "--url", merged_url, "--transactions")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["4", "2", "1"]
    assert "2 … 3" in out
    assert "kept as one step" in out
    assert "a generation begins" in out
    code, out = run(
        capsys, "history", "--url", merged_url, "--transactions", "--limit", 1, "--json"
    )
    assert [row["txid"] for row in json.loads(out)] == [4]
    assert run(capsys, "history", "--url", merged_url, "--transactions", "--limit", 0)[0] == 0


def test_the_command_draws_the_past(merged_url, capsys, tmp_path):
    """With the newest proof in words as well."""
    code, out = run(capsys, "history", "--url", merged_url)
    assert (code, "never; see replicator drill" in out) == (0, True)
    assert "snapshot    ▲" in out
    assert run(capsys, "drill", "--url", merged_url, "--scratch", tmp_path)[0] == 0
    code, out = run(capsys, "history", "--url", merged_url)
    assert "transaction 4 was restored" in out
    assert "verified " in out


@pytest.mark.parametrize("swap", ["merge under another name", "snapshot as a segment"])
def test_an_object_of_another_place_is_named(empty_bucket, swap):
    """A merge under the name of another range, and a snapshot under the name of a segment."""
    bucket = empty_bucket
    for _ in range(2):
        bucket.insert()
        bucket.cut()
    store, keys, last = bucket.store, bucket.keys, bucket.txid
    if swap == "merge under another name":
        source, key = bucket.merge(2, last, drop=True), keys.merged(1, 2, last + 5)
    else:
        source, key = bucket.snapshot(), keys.wal(last + 1)
    store.put(key, store.get(source))
    store.delete(source)
    with raises(DamageError, "other_object", key=key):
        list(transactions(store, "app.db"))
