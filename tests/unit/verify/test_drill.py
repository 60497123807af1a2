"""replicator.verify.drill and its records: a restore that is tried, checked and noted."""

import json
import os
import threading
from pathlib import Path

import pytest

from replicator.archive.keys import Keys
from replicator.archive.names import ProofName, parse
from replicator.archive.point import RestorePoint
from replicator.archive.records import (
    DAMAGED,
    FAILED,
    KEPT,
    PROVEN,
    REFUTED,
    REPAIRED,
    add_record,
    latest,
    list_records,
    unresolved_failure,
)
from replicator.errors import (
    AccessDenied,
    Cancelled,
    CheckFailed,
    ConfigError,
    DamageError,
    DiskFull,
    GapError,
    LocalIOError,
    NewerFormat,
    NoBackup,
)
from replicator.sqlite.integrity import check_database
from replicator.sqlite.isolated import SqlLimits
from replicator.store.address import StoreAddress
from replicator.store.bandwidth import ThrottledStore
from replicator.store.directory import DirectoryStore
from replicator.store.memory import MemoryStore
from replicator.system.files import Files
from replicator.verify.drill import drill, drill_at
from tests.helpers.bucket import BucketBuilder
from tests.helpers.errors import raises
from tests.helpers.newer_format import upgrade
from tests.helpers.replication import HookedStore
from tests.helpers.strange_schema import MODULES, STRANGE, statements, supply

KEYS = Keys("app.db")


@pytest.fixture
def scratch(tmp_path):
    """An empty directory for drills."""
    path = tmp_path / "scratch"
    path.mkdir()
    return path


def outcomes(store):
    return [(each.outcome, each.txid) for each in list_records(store, KEYS)]


def test_a_drill_restores_checks_and_records(bucket, scratch):
    """The newest transaction, with SQLite's check and the user's statements; the note in the
    bucket says what was proved; the scratch directory is empty again."""
    report = drill(
        bucket.store,
        "app.db",
        scratch=scratch,
        assertions=["SELECT count(*) > 0 FROM t", "SELECT 'yes' IS NOT NULL"],
    )
    assert report.restore.txid == bucket.txid
    assert report.checked == (
        "SQLite's integrity_check",
        "SELECT count(*) > 0 FROM t",
        "SELECT 'yes' IS NOT NULL",
    )
    assert outcomes(bucket.store) == [(PROVEN, bucket.txid)]
    written = json.loads(bucket.store.get(report.recorded))
    assert (written["txid"], written["checksum"]) == (bucket.txid, report.restore.checksum)
    assert os.listdir(scratch) == []


def test_a_drill_of_the_past_is_recorded_too(bucket, scratch):
    """Any transaction can be tried; the note names it."""
    assert drill(bucket.store, "app.db", scratch=scratch, point=RestorePoint(5)).restore.txid == 5
    assert outcomes(bucket.store) == [(PROVEN, 5)]


def test_without_a_record_the_bucket_is_only_read(bucket, scratch):
    """For credentials that may not write."""
    before = bucket.objects()
    assert drill(bucket.store, "app.db", scratch=scratch, record=False).recorded is None
    assert bucket.objects() == before


def test_a_record_that_is_refused_is_told_and_no_failure(bucket, scratch):
    """The restore was proved all the same."""
    store = HookedStore(bucket.store)

    def before(method, key):
        if method == "put":
            raise AccessDenied("read only")

    store.before = before
    report = drill(store, "app.db", scratch=scratch)
    assert (report.recorded, report.unrecorded) == (None, "read only")


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("SELECT count(*) > 1000000 FROM t", "is not true: it gave 0"),
        ("SELECT NULL", "is not true: it gave None"),
        ("SELECT * FROM absent", "no such table"),
        ("SELECT 1 UNION SELECT 2", "does not give one value"),
        ("SELECT 1, 2", "does not give one value"),
        ("SELECT 1 WHERE 0", "does not give one value"),
        ("SELECT 1; SELECT 2", "failed: "),
    ],
)
def test_a_statement_that_does_not_hold_fails_the_drill(bucket, scratch, sql, why):
    """Exit code 3, noted as refuted, which is no trouble that a snapshot could cure."""
    with pytest.raises(CheckFailed, match=why) as caught:
        drill(bucket.store, "app.db", scratch=scratch, assertions=[sql])
    assert caught.value.exit_code == 3
    assert outcomes(bucket.store) == [(REFUTED, 0)]
    assert unresolved_failure(list_records(bucket.store, KEYS)) is None
    assert os.listdir(scratch) == []


def test_a_statement_that_writes_is_a_mistake_of_the_caller(bucket, scratch):
    """Exit code 2: it proves nothing about the archive, so it is not recorded."""
    with raises(ConfigError, code="statement_forbidden", setting="assert"):
        drill(bucket.store, "app.db", scratch=scratch, assertions=["DELETE FROM t RETURNING 1"])
    assert outcomes(bucket.store) == []
    assert os.listdir(scratch) == []


def test_a_statement_without_an_end_does_not_keep_the_drill(bucket, scratch):
    """The limits of its caller hold. The outcome is unknown; the restore itself is proved."""
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT count(*) FROM n"
    limits = SqlLimits(seconds=0.5)
    report = drill(bucket.store, "app.db", scratch=scratch, assertions=[endless], sql=limits)
    assert report.exit_code == 10
    assert repr(endless) in report.inconclusive[-1]  # SQLite's check may be ended, too
    assert os.listdir(scratch) == []


def test_damage_and_gaps_fail_the_drill_loudly(bucket, scratch):
    """The restore's own error, noted as trouble that stands until a later proof."""
    key = bucket.keys.wal(16)
    info, body = bucket.store.head(key), bucket.store.get(key)
    bucket.store.put(key, body[:50], metadata=info.metadata, if_absent=False)
    with pytest.raises(DamageError):
        drill(bucket.store, "app.db", scratch=scratch)
    bucket.store.delete(bucket.keys.wal(15))
    with pytest.raises(GapError):
        drill(bucket.store, "app.db", scratch=scratch)
    assert outcomes(bucket.store) == [(FAILED, 0), (FAILED, 0)]
    assert unresolved_failure(list_records(bucket.store, KEYS)).outcome == FAILED
    assert os.listdir(scratch) == []


@pytest.mark.parametrize("kind", [*STRANGE, *MODULES])
def test_a_drill_that_cannot_check_all_is_proven_and_inconclusive(bucket, scratch, kind):
    """The checksums prove the restore; the reasons are in the report and in the record."""
    bucket.run(*statements(kind))
    bucket.cut()
    report = drill(bucket.store, "app.db", scratch=scratch, assertions=["SELECT 1"])
    assert report.checked[-1] == "SELECT 1"
    assert bool(report.inconclusive) == (kind in STRANGE and not STRANGE[kind].checked)
    assert report.exit_code == (10 if report.inconclusive else 0)
    assert outcomes(bucket.store) == [(PROVEN, bucket.txid)]
    written = json.loads(bucket.store.get(report.recorded))
    assert written["inconclusive"] == list(report.inconclusive)


def test_a_statement_that_cannot_be_run_hides_no_false_one(bucket, scratch):
    """All statements are tried, and a false one has priority."""
    lacking, false = "SELECT theirs(1)", "SELECT 0"
    report = drill(bucket.store, "app.db", scratch=scratch, assertions=[lacking])
    assert (len(report.inconclusive), report.exit_code) == (1, 10)
    with raises(CheckFailed, statement=false):
        drill(bucket.store, "app.db", scratch=scratch, assertions=[lacking, false])
    assert outcomes(bucket.store) == [(PROVEN, bucket.txid), (REFUTED, 0)]
    report = drill(bucket.store, "app.db", scratch=scratch, assertions=[lacking], prepare=supply)
    assert (report.inconclusive, report.exit_code) == ((), 0)


def test_a_newer_format_is_no_failed_drill(bucket, scratch):
    """It has an exit code of its own, and the bucket gets no record of it."""
    upgrade(bucket.store, bucket.keys.wal(16))
    with raises(NewerFormat, "newer_format") as caught:
        drill(bucket.store, "app.db", scratch=scratch)
    assert caught.value.exit_code == 1
    assert outcomes(bucket.store) == []


def test_a_failed_drill_of_the_past_says_nothing_of_the_present(bucket, scratch):
    """A transaction out of reach is an error, but no trouble for the sidecar."""
    with pytest.raises(GapError):
        drill(bucket.store, "app.db", scratch=scratch, point=RestorePoint(99))
    assert outcomes(bucket.store) == []


def test_nothing_to_restore_is_told_apart(scratch):
    """A drill on an empty store is NoBackup."""
    with pytest.raises(NoBackup):
        drill(MemoryStore(), "app.db", scratch=scratch)


def test_room_is_asked_for_before_anything_is_fetched(bucket, scratch):
    """A full disk costs a plan, not a download, and is no failure of the backup."""

    class Full(Files):
        def disk_free(self, path):
            return 1000

    store = HookedStore(bucket.store)
    with pytest.raises(DiskFull, match="a drill needs"):
        drill(store, "app.db", scratch=scratch, files=Full())
    assert len(store.keys("get")) <= 2  # what the plan rests on
    assert outcomes(bucket.store) == []


def test_a_scratch_directory_that_is_not_there(bucket, tmp_path):
    """A drill with a missing scratch directory is a LocalIOError."""
    with pytest.raises(LocalIOError):
        drill(bucket.store, "app.db", scratch=tmp_path / "nowhere")


def test_a_check_that_takes_long_can_be_given_up(bucket, tmp_path):
    """SQLite asks now and then; the answer ends it."""
    bucket.run(
        "CREATE TABLE big AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n "
        "WHERE i < 60000) SELECT i FROM n"
    )
    path = tmp_path / "big.db"
    path.write_bytes(bucket.images[bucket.txid])
    with pytest.raises(Cancelled):
        check_database(path, full=True, cancelled=lambda: True)
    check_database(path, full=True)


def test_a_drill_at_a_place(tmp_path, scratch):
    """The one database of a bucket is found by itself."""
    for name in ("source", "bucket"):
        (tmp_path / name).mkdir()
    built = BucketBuilder(tmp_path / "source", DirectoryStore(tmp_path / "bucket"))
    report = drill_at(StoreAddress.parse(f"file://{tmp_path}/bucket"), scratch=scratch)
    built.close()
    assert report.restore.txid == 1
    assert Path(tmp_path / "bucket" / report.recorded).exists()


# -------------------------------------------------------------------------------- records


def test_names_of_notes_are_read_back_and_nothing_else_is():
    """What a name tells; foreign names are none."""
    key = KEYS.proof(1_700_000_000_000, PROVEN, 77)
    assert key == "app.db/proofs/1700000000000-proven-000000000000004d.json"
    assert parse(KEYS, key) == ProofName(1_700_000_000_000, PROVEN, 77)
    for foreign in ("app.db/proofs/x.json", "other/" + key, key + ".tmp", "app.db/wal/1"):
        assert parse(KEYS, foreign) is None


def test_only_the_newest_notes_of_a_kind_are_kept():
    """Each kind by itself, so that no flood of one hides the other."""
    store = MemoryStore()
    add_record(store, KEYS, DAMAGED, 1, 5, {})
    for at in range(KEPT + 3):
        add_record(store, KEYS, PROVEN, at, 10 + at, {})
    assert [each.txid for each in list_records(store, KEYS) if each.outcome == PROVEN] == list(
        range(3, KEPT + 3)
    )
    assert latest(list_records(store, KEYS), DAMAGED).txid == 1


def test_two_notes_of_one_millisecond_are_two():
    """None is overwritten."""
    store = MemoryStore()
    first, second = (add_record(store, KEYS, PROVEN, 5, 1000, {}) for _ in range(2))
    assert (first.at_ms, second.at_ms) == (1000, 1001)


def test_a_store_that_forbids_deletes_keeps_all_of_them():
    """Adding still works."""
    store = HookedStore()

    def before(method, key):
        if method == "delete":
            raise AccessDenied("append only")

    store.before = before
    for at in range(KEPT + 2):
        add_record(store, KEYS, PROVEN, at, at, {})
    assert len(list_records(store, KEYS)) == KEPT + 2


def test_trouble_stands_until_something_newer_cures_it():
    """By the times in the names, whatever the order they were written in."""
    store = MemoryStore()
    assert unresolved_failure([]) is None
    add_record(store, KEYS, PROVEN, 1, 100, {})
    add_record(store, KEYS, DAMAGED, 2, 200, {})
    assert unresolved_failure(list_records(store, KEYS)).txid == 2
    add_record(store, KEYS, REPAIRED, 3, 300, {})
    assert unresolved_failure(list_records(store, KEYS)) is None
    add_record(store, KEYS, FAILED, 0, 400, {})
    assert unresolved_failure(list_records(store, KEYS)).outcome == FAILED


# ------------------------------------------------------------------------------- throttle


class Pauses(threading.Event):
    """An event whose waits pass in no time, on a clock of its own."""

    def __init__(self):
        super().__init__()
        self.now = 0.0

    def wait(self, timeout=None):
        self.now += timeout or 0.0
        return self.is_set()


def test_reads_keep_to_the_bandwidth():
    """Each read waits until the ones before are paid for; other calls do not wait."""
    inner, clock = MemoryStore(), Pauses()
    inner.put("a", b"x" * 1000)
    store = ThrottledStore(inner, 100, clock, now=lambda: clock.now)
    store.get("a")
    assert clock.now == 0
    store.head("a")
    assert clock.now == 0
    store.get("a", 0, 500)
    assert clock.now == 10
    store.get("a", 0, 1)
    assert clock.now == 15


def test_without_a_bandwidth_nothing_waits_and_stopping_ends_it():
    """At the next call, whatever it is; closing leaves the store open."""
    inner, clock = MemoryStore(), Pauses()
    inner.put("a", b"x" * 1000)
    store = ThrottledStore(inner, 0, clock, now=lambda: clock.now)
    store.get("a")
    store.get("a")
    assert clock.now == 0
    clock.set()
    for slow in (store, ThrottledStore(inner, 10, clock)):
        with pytest.raises(Cancelled):
            slow.get("a")
    store.close()
    assert inner.get("a")
