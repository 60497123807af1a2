"""cache/ledger.py: no row with a wrong value is believed, and every row is found by an index."""

import os
import shutil
import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replicator.cache.cache import Cache
from replicator.cache.ledger import Ledger
from replicator.cache.records import Fact
from replicator.cache.schema import delivery_of, delivery_row, record_of, segment_row
from replicator.errors import LedgerDamaged, LocalIOError
from replicator.model import Kind
from replicator.system.files import Files
from tests.helpers.cache import (
    add,
    assert_set_aside,
    hashes_of,
    query,
    record,
    upload,
)
from tests.helpers.files import CountingFiles, FailingFiles


def test_the_ledger_commits_durably(cache):
    """synchronous = FULL: a commit of the ledger survives a power cut."""
    (found,) = cache._ledger._file.run("PRAGMA synchronous")
    assert found == (2,)
    (found,) = cache._ledger._file.run("PRAGMA journal_mode")
    assert found == ("wal",)


@given(st.integers(1, 2**62), st.sampled_from(Kind), st.booleans(), st.none() | st.text())
def test_a_record_survives_its_row(txid, kind, stored, text):
    """Every field comes back equal, whatever its value."""
    before = record(
        txid,
        kind=kind,
        stored=stored,
        last_error=text,
        upload_id=text,
        uploaded_ms=txid,
        metadata={"k": text or ""},
    )
    delivery = delivery_of(delivery_row(txid, before.delivery))
    assert record_of(segment_row(before), delivery) == before


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("UPDATE delivery SET status = 3 WHERE first_txid = 2", "delivery of 2 does not match"),
        ("DELETE FROM delivery WHERE first_txid = 2", "delivery of 2 does not match"),
        ("UPDATE delivery SET destination = 'x' WHERE first_txid = 2", "delivery of 2 does not"),
        ("UPDATE delivery SET first_txid = 9 WHERE first_txid = 5", "delivery of 5 does not"),
        ("DELETE FROM segment WHERE first_txid = 5", "delivery has no segment"),
        ("DELETE FROM destination", "destination 'primary' is missing"),
        ("UPDATE destination SET first_txid = 3", "destination 'primary' does not match"),
        ("UPDATE destination_fact SET value = '9'", "fact 'claim' of primary does not match"),
        ("UPDATE segment SET checksum = '0000000000000000'", "segment 1 does not match"),
        ("UPDATE segment SET first_txid = 9 WHERE first_txid = 5", "segment 9 does not match"),
        ("UPDATE segment SET check_sum = NULL WHERE first_txid = 5", "segment 5 does not match"),
        ("UPDATE segment SET key = CAST(x'ff' AS TEXT)", "Could not decode"),
        ("DELETE FROM segment WHERE first_txid = 3", "the segment before txid 4 is missing"),
        ("UPDATE fact SET value = 'someone' WHERE name = 'writer'", "fact 'writer' does not match"),
        ("UPDATE fact SET name = 'other' WHERE name = 'writer'", "fact 'other' does not match"),
        ("DELETE FROM fact", "its format is None"),
        ("DROP TABLE fact", "no such table"),
        ("ALTER TABLE segment DROP COLUMN metadata", "no such column"),
    ],
)
def test_a_row_that_changed_is_noticed(filled_cache, sql, reason):
    """SQLite calls all of these a good database; the rows' own checks do not."""
    query(filled_cache, sql)
    assert_set_aside(filled_cache, reason)


def test_an_acknowledgement_is_never_made_by_a_flipped_bit(filled_cache, filled):
    """Each bit of the one byte that says how far a segment got."""
    for status in (1, 3, 4, 0, 6, 10, 18, 34, 66):
        if status != filled[1][1].delivery.status:
            query(filled_cache, f"UPDATE delivery SET status = {status} WHERE first_txid = 2")
            with pytest.raises(LedgerDamaged):
                Ledger(filled_cache / "state.db", Files())


@settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_any_flipped_bit_or_truncation_is_harmless_or_noticed(filled, tmp_path, data):
    """The cache comes back equal, or empty with a word about it; never different."""
    source, records = filled
    directory = tmp_path / "cache"
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(source, directory)
    content = bytearray((directory / "state.db").read_bytes())
    if data.draw(st.booleans(), "truncate"):
        del content[data.draw(st.integers(1, len(content) - 1), "length") :]
    else:
        bit = data.draw(st.integers(0, 8 * len(content) - 1), "bit")
        content[bit // 8] ^= 1 << bit % 8
    (directory / "state.db").write_bytes(content)
    with Cache.open(directory) as cache:
        if cache.recovered:
            assert cache.records() == []
        else:
            assert cache.records() == records
            assert cache.get(Fact.DATABASE) == "1:2"
        cache.load_hashes(5)


def test_damage_met_later_is_an_error_with_a_way_out(filled_cache):
    """A live ledger that breaks raises; the next opening sets it aside."""
    with Cache.open(filled_cache) as cache:
        query(filled_cache, "UPDATE segment SET size = 1")
        with pytest.raises(LedgerDamaged, match="does not match its checksum") as caught:
            cache.head()
        assert "set aside" in caught.value.hint
        assert caught.value.exit_code == 7
    assert_set_aside(filled_cache, "does not match")


def test_damaged_page_hash_changes_cost_the_hashes_only(filled_cache, filled):
    """They can be made again from the database; the segments cannot."""
    query(filled_cache, "UPDATE change SET entries = x'00' WHERE last_txid = 2")
    with Cache.open(filled_cache) as cache:
        assert cache.records() == filled[1]
        with pytest.raises(LedgerDamaged):
            cache._ledger.changes(0, 5)
        assert cache.load_hashes(5) is None


def test_a_disk_that_refuses_is_not_damage(filled_cache, filled):
    """An I/O error while opening leaves the ledger where it is."""
    for at in range(1, 12):
        with pytest.raises(LocalIOError) as caught:
            Cache.open(filled_cache, FailingFiles(at, 5))
        assert not isinstance(caught.value, LedgerDamaged)
    assert not [name for name in os.listdir(filled_cache) if "corrupt" in name]
    with Cache.open(filled_cache) as cache:
        assert cache.records() == filled[1]


def test_every_row_is_found_by_an_index(tmp_path):
    """No statement of a cache in use reads a whole table: the joined rows of 4096 segments took
    0.85 s to read while SQLite could not use the key of ``delivery``."""
    files = CountingFiles()
    with Cache.open(tmp_path / "cache", files) as cache:
        opened = len(files.log)
        cache.save_hashes(0, hashes_of(3))
        for txid in range(1, 6):
            add(cache, txid, change=b"change")
        upload(cache, 1)
        cache.drop_pending(5)
        cache.load_hashes(3)
        cache.hashes_due()
        cache.trim(0)
        calls = [args[:2] for name, args in files.log[opened:] if name == "_execute"]
    db = sqlite3.connect(tmp_path / "cache" / "state.db")
    plans = {
        step
        for sql, parameters in calls
        if sql.startswith("SELECT")
        for *_, step in db.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)
    }
    db.close()
    scans = {step for step in plans if step.startswith("SCAN")}
    allowed = {"SCAN fact", "SCAN change"}  # a few rows; the sum of all changes
    covering = {step for step in scans if "INDEX waiting" in step or "COVERING INDEX" in step}
    assert scans - covering - allowed == set()
    assert any(step.startswith("SEARCH d USING PRIMARY KEY") for step in plans)
