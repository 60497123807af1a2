"""Ledgers of older formats: today's code continues them, whatever interrupts the migration.

The fixture ``ledger-v1`` is a cache directory of format 1, written by the last version with that
format and copied while that version had it open, with its WAL: the state after a kill. Its
``facts.json`` holds all that the old version knew about it. It is kept for ever.
"""

import dataclasses
import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from replicator.cache.cache import Cache
from replicator.cache.ledger import Ledger
from replicator.cache.records import PRIMARY, Delivery, Fact, SegmentRecord, Status
from replicator.cache.schema import FORMAT, check_sum
from replicator.errors import DiskFull, LedgerDamaged, LedgerTooNew, LocalIOError
from replicator.model import DatabaseState, Kind, WalPosition
from replicator.system.files import Files
from tests.helpers.cache import query
from tests.helpers.files import CountingFiles, Crash, CrashingFiles, FailingFiles, KillingFiles

FIXTURE = Path(__file__).parents[2] / "fixtures" / "ledger-v1"
KNOWN = json.loads((FIXTURE / "facts.json").read_text())
DELIVERY = {field.name for field in dataclasses.fields(Delivery)} - {"destination"}


def expected(values):
    """The record that stands for what the old version knew of a segment."""
    values = dict(values)
    values.pop("file_name")
    delivery = {name: values.pop(name) for name in DELIVERY}
    end = values["end"] | {"checksum": tuple(values["end"]["checksum"])}
    return SegmentRecord(
        **values
        | {
            "kind": Kind[values["kind"]],
            "end": WalPosition(**end),
            "state": DatabaseState(**values["state"]),
            "delivery": Delivery(**delivery | {"status": Status[delivery["status"]]}),
        }
    )


SEGMENTS = [expected(values) for values in KNOWN["segments"]]
# An opened cache has no attempt that runs: that of the process that ended waits again.
SETTLED = [
    dataclasses.replace(r, delivery=dataclasses.replace(r.delivery, status=Status.PENDING))
    if r.delivery.status is Status.UPLOADING
    else r
    for r in SEGMENTS
]


@pytest.fixture
def old_cache_directory(tmp_path):
    """A copy of a cache in the first format."""
    shutil.copytree(FIXTURE / "cache", tmp_path / "cache")
    return tmp_path / "cache"


def content(directory):
    """The bytes of every file."""
    return {p.relative_to(directory): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def check(directory, where=""):
    """The cache holds all that the old version knew, and is of use."""
    with Cache.open(directory) as cache:
        assert cache.recovered == [], where
        assert cache.records() == SETTLED, where
        assert {fact: cache.get(fact) for fact in Fact} == {
            fact: KNOWN["facts"].get(fact) for fact in Fact
        }, where
        assert cache._ledger.changes(0, 99) == [
            bytes.fromhex(entries) for entries in KNOWN["changes"].values()
        ]
        for record in cache.records():
            if record.stored:
                assert hashlib.sha256(cache.read(record)).hexdigest() == record.sha256
    assert query(directory, "PRAGMA integrity_check") == [("ok",)]
    assert query(directory, "SELECT value FROM fact WHERE name = 'format'") == [(str(FORMAT),)]


NEWER = {Fact.BIRTH, Fact.COUNTERS, Fact.SEALED}  # no cache of format 1 had them


def test_the_fixture_has_one_of_everything():
    """Otherwise the tests below prove less than they claim."""
    assert {r.delivery.status for r in SEGMENTS} == set(Status)
    assert {r.kind for r in SEGMENTS} == {Kind.GENERATION, Kind.SEGMENT, Kind.MERGE_NEWEST}
    assert {r.stored for r in SEGMENTS} == {True, False}
    assert any(r.delivery.upload_id and r.delivery.part_size for r in SEGMENTS)
    assert any(r.delivery.last_error for r in SEGMENTS)
    assert {*KNOWN["facts"]} == {*Fact, "format"} - NEWER
    assert len(KNOWN["changes"]) > 5
    assert (FIXTURE / "cache" / "state.db-wal").stat().st_size > 0


def test_every_value_of_format_1_is_kept(old_cache_directory):
    """Records, statuses, attempts, facts, page hashes and sums, before any file is looked at."""
    ledger = Ledger(old_cache_directory / "state.db", Files())
    assert ledger.records() == SEGMENTS
    assert {r.delivery.destination for r in SEGMENTS} == {PRIMARY}
    assert ledger.stored_bytes() == KNOWN["usage"]
    assert ledger.waiting_bytes() == KNOWN["pending-bytes"]
    ledger.close()
    check(old_cache_directory)


def test_the_migrated_cache_continues(old_cache_directory):
    """Watermark, queue, page hashes of each segment's end, and the next segment."""
    with Cache.open(old_cache_directory) as cache:
        assert cache.head().first_txid == KNOWN["head"]
        assert cache.durable().first_txid == KNOWN["durable"]
        assert [r.first_txid for r in cache.pending()] == KNOWN["pending"]
        for txid, digest in KNOWN["states"].items():
            hashes = cache.load_hashes(int(txid))
            assert hashlib.sha256(hashes.to_bytes()).hexdigest() == digest
        for record in cache.pending():
            cache.uploading(record.first_txid)
            assert cache.uploaded(record.first_txid, 5).delivery.uploaded_ms == 5
        assert cache.durable() == cache.head()
        cache.trim(0)
        assert cache.usage() == 0


def test_a_migrated_ledger_is_as_a_new_one(old_cache_directory, tmp_path):
    """The same tables and indexes, so that no query depends on the age of a cache."""
    schema = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"
    Cache.open(old_cache_directory).close()
    Cache.open(tmp_path / "new").close()
    assert query(old_cache_directory, schema) == query(tmp_path / "new", schema)


def test_a_migration_happens_once(old_cache_directory):
    """The second opening writes nothing."""
    Cache.open(old_cache_directory).close()
    files = CountingFiles()
    Cache.open(old_cache_directory, files).close()
    assert not [args[0] for name, args in files.log if name == "_execute" and "INSERT" in args[0]]
    check(old_cache_directory)


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """How many system calls and statements the opening with a migration makes."""
    directory = tmp_path_factory.mktemp("counting") / "cache"
    shutil.copytree(FIXTURE / "cache", directory)
    files = CountingFiles()
    Cache.open(directory, files).close()
    return len(files.log)


def copies(tmp_path, numbers):
    for at in numbers:
        shutil.copytree(FIXTURE / "cache", tmp_path / str(at))
        yield at, tmp_path / str(at)


def test_a_crash_at_any_call_leaves_the_old_ledger_or_the_new_one(tmp_path, calls):
    """The process ends before call 1, 2, 3 …; the next start finds every value."""
    for at, directory in copies(tmp_path, range(1, calls + 1)):
        files = CrashingFiles(at)
        with pytest.raises(Crash):
            Cache.open(directory, files)
        check(directory, f"call {at}: {files.log[at - 1]}")


def test_sigkill_at_any_call_leaves_the_old_ledger_or_the_new_one(tmp_path, calls):
    """The same with a real process and a real kill."""
    for at, directory in copies(tmp_path, range(1, calls + 1)):
        child = os.fork()
        if not child:
            Cache.open(directory, KillingFiles(at))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status)
        check(directory, f"call {at}")


@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, DiskFull), (errno.EIO, LocalIOError)])
def test_an_error_at_any_statement_leaves_the_old_ledger_or_the_new_one(tmp_path, code, kind):
    """The disk refuses once: our error, no word of damage, and at the next start all is there."""
    files = CountingFiles()
    (_, directory), *_ = copies(tmp_path, ["counting"])
    Ledger(directory / "state.db", files).close()
    for at, directory in copies(tmp_path, range(1, len(files.log) + 1)):
        with pytest.raises(kind) as caught:
            Ledger(directory / "state.db", FailingFiles(at, code))
        assert type(caught.value) is kind
        check(directory, f"call {at}: {files.log[at - 1]}")


def test_a_ledger_of_a_newer_version_is_refused_and_left_alone(old_cache_directory):
    """It is sound; the newer version finds it as it was."""
    Cache.open(old_cache_directory).close()
    newer = str(FORMAT + 1)
    query(
        old_cache_directory,
        "UPDATE fact SET value = ?, check_sum = ? WHERE name = 'format'",
        newer,
        check_sum(("format", newer)),
    )
    before = content(old_cache_directory)
    with pytest.raises(LedgerTooNew) as caught:
        Cache.open(old_cache_directory)
    assert (caught.value.found, caught.value.known) == (FORMAT + 1, FORMAT)
    assert caught.value.exit_code == 7
    assert "newer version" in caught.value.hint
    assert {name: data for name, data in content(old_cache_directory).items() if data} == before


@pytest.mark.parametrize("text", ["0", "-1", "x", "²", ""])
def test_a_format_that_no_version_has_is_damage(old_cache_directory, text):
    """Set aside like any other damage."""
    query(
        old_cache_directory,
        "UPDATE fact SET value = ?, check_sum = ? WHERE name = 'format'",
        text,
        check_sum(("format", text)),
    )
    with pytest.raises(LedgerDamaged):
        Ledger(old_cache_directory / "state.db", Files())


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("UPDATE segment SET status = 3 WHERE first_txid = 8", "segment 8 does not match"),
        ("DELETE FROM segment WHERE first_txid = 8", "the segment before txid 9 is missing"),
        ("UPDATE fact SET value = 'x' WHERE name = 'claim'", "fact 'claim' does not match"),
        ("UPDATE fact SET value = '2' WHERE name = 'format'", "fact 'format' does not match"),
        ("DROP TABLE segment", "no such table"),
    ],
)
def test_damage_in_an_old_ledger_is_not_migrated(old_cache_directory, sql, reason):
    """The checks of the old rows are proved before new ones are made of them."""
    query(old_cache_directory, sql)
    with Cache.open(old_cache_directory) as cache:
        assert reason in cache.recovered[0]
        assert "set aside" in cache.recovered[0]
        assert cache.head() is None
    assert (old_cache_directory / "state.db.corrupt-1").exists()


def test_a_fact_of_an_unknown_name_stays(old_cache_directory):
    """It may be of use to another version."""
    query(
        old_cache_directory,
        "INSERT INTO fact VALUES ('other', 'value', ?)",
        check_sum(("other", "value")),
    )
    Cache.open(old_cache_directory).close()
    assert query(old_cache_directory, "SELECT value FROM fact WHERE name = 'other'") == [("value",)]
