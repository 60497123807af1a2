"""Several destinations in one ledger: today's tables serve them, though today has one.

The cache delivers to ``primary`` alone. These tests use the ledger below it.
"""

import dataclasses
import os

import pytest

from replicator.cache.ledger import Ledger
from replicator.cache.limits import CacheLimits
from replicator.cache.records import PRIMARY, Delivery, Fact, Status
from replicator.cache.segment_files import SegmentFiles
from replicator.cache.trimming import trim
from replicator.errors import LedgerDamaged
from replicator.system.files import Files
from tests.helpers.cache import content, record

SECOND = "second"


@pytest.fixture
def ledger_path(tmp_path):
    """The path of a ledger that does not exist yet."""
    return tmp_path / "state.db"


@pytest.fixture
def ledger(ledger_path):
    """An empty ledger."""
    ledger = Ledger(ledger_path, Files())
    yield ledger
    ledger.close()


def add(ledger, *txids):
    with ledger.transaction():
        for txid in txids:
            ledger.add(record(txid))


def add_second(ledger, first_txid):
    with ledger.transaction():
        ledger.add_destination(SECOND, first_txid)


def acknowledge(ledger, destination, *txids):
    with ledger.transaction():
        for txid in txids:
            ledger.save_delivery(txid, Delivery(destination, Status.UPLOADED, attempts=1))


def reopened(ledger, path):
    ledger.close()
    return Ledger(path, Files())


def txids(records):
    return [r.first_txid for r in records]


def test_a_new_destination_is_owed_what_comes_from_its_generation_on(ledger, ledger_path):
    """Older segments are neither pending nor durable there; new ones wait for both."""
    add(ledger, 1, 2)
    acknowledge(ledger, PRIMARY, 1, 2)
    add_second(ledger, 3)
    add(ledger, 3, 4)
    ledger = reopened(ledger, ledger_path)
    assert txids(ledger.records()) == [1, 2, 3, 4]
    assert txids(ledger.records(destination=SECOND)) == [3, 4]
    assert txids(ledger.waiting()) == txids(ledger.waiting(destination=SECOND)) == [3, 4]
    assert ledger.waiting_bytes(destination=SECOND) == len(content(3)) + len(content(4))
    assert ledger.durable().first_txid == 2
    assert ledger.durable(destination=SECOND) is None


def test_each_destination_has_its_own_watermark(ledger):
    """And its own attempts, errors and multipart upload."""
    add_second(ledger, 0)
    add(ledger, 1, 2, 3)
    acknowledge(ledger, PRIMARY, 1, 2)
    acknowledge(ledger, SECOND, 1)
    assert ledger.durable().first_txid == 2
    assert ledger.durable(destination=SECOND).first_txid == 1
    upload = Delivery(SECOND, Status.UPLOADING, 2, 5, "503", "id", 7)
    with ledger.transaction():
        ledger.save_delivery(2, upload)
    assert ledger.find(2, destination=SECOND).delivery == upload
    assert ledger.find(2).delivery == Delivery(status=Status.UPLOADED, attempts=1)


def test_each_destination_has_its_own_facts(ledger):
    """A claim is on one archive; the facts of the cache are shared."""
    add_second(ledger, 0)
    with ledger.transaction():
        ledger.put(Fact.CLAIM, "3")
        ledger.put(Fact.CLAIM, "9", destination=SECOND)
        ledger.put(Fact.DATABASE, "1:2")
    assert ledger.get(Fact.CLAIM) == "3"
    assert ledger.get(Fact.CLAIM, destination=SECOND) == "9"
    assert ledger.get(Fact.DATABASE) == ledger.get(Fact.DATABASE, destination=SECOND) == "1:2"


def test_a_file_is_trimmed_when_every_destination_has_it(ledger, ledger_path, tmp_path):
    """The slowest destination decides, and its newest acknowledged row stays."""
    files = SegmentFiles(tmp_path / "segments", Files())
    add_second(ledger, 0)
    for txid in range(1, 5):
        file = files.create()
        file.write(content(txid))
        files.publish(file, record(txid))
    add(ledger, *range(1, 5))
    acknowledge(ledger, PRIMARY, 1, 2, 3, 4)
    assert trim(ledger, files, 0, CacheLimits()) == 0
    acknowledge(ledger, SECOND, 1, 2)
    assert trim(ledger, files, 0, CacheLimits()) == len(content(1)) + len(content(2))
    assert sorted(os.listdir(files.directory)) == [record(3).file_name, record(4).file_name]
    assert txids(ledger.records()) == [2, 3, 4]
    ledger = reopened(ledger, ledger_path)
    assert ledger.durable(destination=SECOND).first_txid == 2
    acknowledge(ledger, SECOND, 3, 4)
    assert trim(ledger, files, 0, CacheLimits()) == len(content(3)) + len(content(4))
    assert txids(ledger.records()) == [4]


def test_what_any_destination_was_offered_keeps_its_bytes(ledger):
    """An attempt at one destination is enough, acknowledged or not."""
    add_second(ledger, 0)
    add(ledger, 1, 2, 3)
    assert not ledger.offered(1, 3)
    with ledger.transaction():
        ledger.save_delivery(2, Delivery(SECOND, attempts=1))
    assert ledger.offered(1, 2)
    assert ledger.offered(2, 3)
    assert not ledger.offered(3, 3)
    assert not ledger.offered(1, 1)


def test_a_missing_delivery_is_damage_at_the_destination_that_is_owed_it(ledger, ledger_path):
    """It must look like neither an acknowledgement nor an older segment."""
    add_second(ledger, 2)
    add(ledger, 1, 2)
    with ledger.transaction():
        ledger._file.run("DELETE FROM delivery WHERE destination = ?", (SECOND,))
    with pytest.raises(LedgerDamaged, match="delivery of 2"):
        ledger.find(2, destination=SECOND)
    with pytest.raises(LedgerDamaged, match="delivery of 2"):
        Ledger(ledger_path, Files())


def test_a_record_keeps_the_delivery_that_it_was_read_for(ledger):
    """Adding it anew changes nothing for the other destination but a fresh start."""
    add_second(ledger, 0)
    with ledger.transaction():
        delivery = Delivery(status=Status.UPLOADED)
        ledger.add(dataclasses.replace(record(1), delivery=delivery))
    assert ledger.find(1).delivery == delivery
    assert ledger.find(1, destination=SECOND).delivery == Delivery(SECOND)
