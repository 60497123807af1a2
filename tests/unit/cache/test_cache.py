"""cache/cache.py: the queue of segments, its order, and deliveries that only answers move."""
# ruff: noqa: PLR1704 - a cache that is opened again keeps its name

import dataclasses
import sqlite3
import threading

import pytest

from replicator.cache.cache import Cache, Offered
from replicator.cache.records import Delivery, Fact, Status
from replicator.errors import DiskFull, LedgerDamaged, LocalIOError
from replicator.model import Kind
from tests.helpers.cache import add, commit, content, files_in, record, reopened, txids, upload
from tests.helpers.errors import raises
from tests.helpers.files import CountingFiles


def test_a_new_cache_is_empty(cache):
    """Nothing captured, nothing durable, nothing pending, nothing wrong."""
    assert cache.head() is cache.durable() is cache.next_pending() is None
    assert cache.pending() == cache.records() == cache.recovered == []
    assert cache.usage() == cache.pending_bytes() == cache.trim(0) == 0
    assert cache.drop_pending() == []
    assert cache.load_hashes(1) is None
    assert not cache.hashes_due()


def test_records_and_bytes_survive_reopening(cache):
    """Every field of a record, every byte of a segment, every fact."""
    written = [add(cache, 1, 5), add(cache, 6, values={"kind": Kind.CATCH_UP})]
    cache.put(Fact.DATABASE, "1:2")
    cache.put(Fact.DATABASE, "3:4 ü")
    writer = cache.writer
    with reopened(cache) as cache:
        assert cache.records() == cache.pending() == written
        assert [cache.read(r) for r in written] == [content(1, 5), content(6)]
        assert cache.writer == writer
        assert cache.get(Fact.DATABASE) == "3:4 ü"
        assert cache.get(Fact.CLAIM) is None
        assert cache.recovered == []
        with cache.open_segment(written[0]) as file:
            assert file.pread(7, 0) == b"segment"


def test_a_segment_is_synced_before_its_row(cache_directory):
    """The order of writes that makes a row a promise."""
    files = CountingFiles()
    with Cache.open(cache_directory, files) as cache:
        start = len(files.log)
        add(cache, 1)
        calls = [args[0] if name == "_execute" else name for name, args in files.log[start:]]
    writes = [c for c in calls if not c.startswith(("SELECT", "stat"))]
    assert writes[:6] == ["open", "write", "fsync", "rename", "open", "fsync"]
    assert writes[6] == "BEGIN IMMEDIATE"
    assert writes[-1] == "COMMIT"


def test_durable_is_the_contiguous_acknowledged_prefix(cache):
    """A hole below the newest acknowledgement keeps the watermark where it is."""
    for txid in range(1, 6):
        add(cache, txid)
    assert cache.durable() is None
    assert upload(cache, 1).delivery.status is Status.UPLOADED
    upload(cache, 3)
    assert cache.durable().last_txid == 1
    assert txids(cache.pending()) == [2, 4, 5]
    upload(cache, 2)
    assert cache.durable().last_txid == 3
    assert cache.next_pending().first_txid == 4
    upload(cache, 4)
    upload(cache, 5)
    assert cache.durable() == cache.head()
    assert cache.next_pending() is None


def test_a_delivery_from_its_first_attempt_to_its_acknowledgement(cache):
    """Attempts are counted, errors and upload ids kept until they are settled."""
    add(cache, 1)
    assert cache.uploading(1).delivery.attempts == 1
    assert cache.progress(1, "id-1", 8 << 20).delivery.part_size == 8 << 20
    failed = cache.failed(1, "503 slow down", 12345).delivery
    assert (failed.status, failed.last_error) == (Status.PENDING, "503 slow down")
    assert (failed.next_attempt_ms, failed.upload_id) == (12345, "id-1")
    assert cache.uploading(1).delivery.attempts == 2
    record = cache.uploaded(1, 777)
    done = record.delivery
    assert (done.status, done.uploaded_ms, done.attempts) == (Status.UPLOADED, 777, 2)
    assert done.upload_id is done.last_error is None
    assert cache.head() == record
    assert done.acknowledged


def test_an_answer_about_a_dropped_segment_acknowledges_nothing(cache):
    """The upload of a dropped segment ends late: its successor of the same txid is not durable."""
    add(cache, 1)
    cache.uploading(1)
    cache.drop_pending()
    assert cache.uploaded(1, 5) is None
    add(cache, 1, 2)
    assert cache.uploaded(1, 5) is None
    assert cache.failed(1, "x", 5) is None
    assert cache.progress(1, "x", 5) is None
    assert cache.uploading(7) is None
    assert cache.durable() is None
    assert cache.next_pending().delivery.attempts == 0


def test_merged_segments_stay_durable(cache):
    """Only acknowledged segments inside the range are marked."""
    for txid in range(1, 5):
        add(cache, txid)
    for txid in range(1, 4):
        upload(cache, txid)
    cache.merged(1, 2)
    cache.merged(3, 9)
    status = [r.delivery.status for r in cache.records()]
    assert status == [Status.MERGED, Status.MERGED, Status.MERGED, Status.PENDING]
    assert cache.durable().last_txid == 3


@pytest.mark.parametrize(
    ("first", "last", "kind", "fits"),
    [
        (4, 4, Kind.SEGMENT, True),
        (4, 9, Kind.CATCH_UP, True),
        (4, 4, Kind.GENERATION, True),
        (9, 9, Kind.GENERATION, True),
        (9, 9, Kind.SEGMENT, False),
        (3, 4, Kind.SEGMENT, False),
        (3, 3, Kind.GENERATION, False),
        (4, 3, Kind.SEGMENT, False),
    ],
)
def test_the_log_has_no_holes(cache, first, last, kind, fits):
    """A segment follows its predecessor; only a generation may leave txids out."""
    add(cache, 1, 3)
    if fits:
        add(cache, first, last, values={"kind": kind})
        with reopened(cache) as cache:
            assert cache.recovered == []
            assert txids(cache.records()) == [1, first]
    else:
        with pytest.raises(ValueError, match="not next in the log"):
            add(cache, first, last, values={"kind": kind})
        assert txids(cache.records()) == [1]
        assert len(files_in(cache.directory)) == 1


@pytest.mark.parametrize("values", [{"size": 3}, {"status": Status.UPLOADED}])
def test_a_record_must_describe_its_file(cache, values):
    """A record that says something else than the draft is refused, and the draft is gone."""
    with pytest.raises(ValueError, match="the record says"):
        add(cache, 1, values=values)
    assert files_in(cache.directory) == []
    assert cache.head() is None


def test_a_discarded_file_leaves_nothing(cache):
    """Several segments can be written at a time, each in its own file."""
    files = [cache.create_segment(), cache.create_segment()]
    for file in files:
        file.write(b"abc")
        assert file.size == 3
    assert len(files_in(cache.directory)) == 2
    for file in files:
        file.discard()
    assert files_in(cache.directory) == []


def test_waiting_segments_can_be_replaced_by_one(cache):
    """A concatenation takes the place of its parts at once, and their files go."""
    for txid in range(1, 5):
        add(cache, txid)
    parts = cache.records()[1:3]
    joined = add(cache, 2, 3, replaces=parts)
    assert txids(cache.records()) == [1, 2, 4]
    assert cache.read(joined) == content(2, 3)
    assert len(files_in(cache.directory)) == 3
    with reopened(cache) as cache:
        assert cache.recovered == []
        assert cache.records()[1] == joined


def test_a_segment_can_be_replaced_by_itself_made_smaller(cache):
    """A squash of one segment: same range, other bytes, no moment without a good file."""
    add(cache, 1)
    (old,) = cache.records()
    new = commit(cache, b"less", record(1, data=b"less"), replaces=[old])
    assert cache.records() == [new]
    assert cache.read(new) == b"less"
    assert len(files_in(cache.directory)) == 1


def test_only_untouched_waiting_segments_are_replaced(cache):
    """What was offered to the store may be in it: other bytes under its key would fence us."""
    for txid in range(1, 6):
        add(cache, txid)
    upload(cache, 1)
    cache.uploading(2)
    cache.failed(2, "lost", 0)
    records = cache.records()
    for chosen in ([records[0]], [records[1], records[2]]):
        with pytest.raises(Offered):
            add(cache, chosen[0].first_txid, chosen[-1].last_txid, replaces=chosen)
    stale = dataclasses.replace(records[2], delivery=Delivery(last_error="x"))
    for first, last, chosen in (
        (3, 4, [stale]),
        (3, 4, records[2:3]),
        (3, 3, records[2:4]),
        (3, 5, [records[2], records[4]]),
    ):
        with pytest.raises(ValueError, match="not what the cache holds"):
            add(cache, first, last, replaces=chosen)
    assert cache.records() == records
    assert len(files_in(cache.directory)) == 5


def test_waiting_segments_can_be_dropped(cache):
    """From a txid on, or all; what is acknowledged stays."""
    for txid in range(1, 6):
        add(cache, txid)
    upload(cache, 1)
    assert txids(cache.drop_pending(4)) == [4, 5]
    assert txids(cache.records()) == [1, 2, 3]
    assert txids(cache.drop_pending()) == [2, 3]
    assert cache.head().first_txid == 1
    assert len(files_in(cache.directory)) == 1
    add(cache, 2, 7)
    assert cache.head().last_txid == 7


def test_an_adopted_segment_is_the_only_one(cache):
    """After a restore the log goes on where the store is, whatever the cache held before."""
    for txid in range(1, 4):
        add(cache, txid)
    adopted = cache.adopt(record(40, 44))
    assert cache.records() == [adopted]
    assert cache.durable() == cache.head() == adopted
    assert not adopted.stored
    assert cache.usage() == 0
    assert files_in(cache.directory) == []
    add(cache, 45)
    with reopened(cache) as cache:
        assert cache.recovered == []
        assert txids(cache.records()) == [40, 45]


def test_a_full_disk_is_disk_full(cache):
    """SQLite's own limit stands for the disk's: the ledger reports it as such and recovers."""
    cache._ledger._file.run("PRAGMA max_page_count = 10")
    with raises(DiskFull, path=str(cache.directory / "state.db")):
        cache.put(Fact.DATABASE, "x" * 100_000)
    cache._ledger._file.run("PRAGMA max_page_count = 10000")
    cache.put(Fact.DATABASE, "x" * 100_000)


def test_a_locked_ledger_is_not_damage(cache):
    """The next statement works again, and no ledger is set aside."""
    cache._ledger._file.run("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(cache.directory / "state.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with raises(LocalIOError, path=str(cache.directory / "state.db")):
        cache.put(Fact.DATABASE, "b")
    other.close()
    cache.put(Fact.DATABASE, "b")


def test_a_closed_cache_refuses(cache):
    """Use after close is an error with a class, not a crash; as it only happens when the cache
    could not be opened again, the next attempt to do so is due."""
    cache.close()
    cache.close()
    with raises(LedgerDamaged, path=str(cache.directory / "state.db")):
        cache.head()


def test_capture_and_upload_share_the_cache(cache):
    """Two threads, one filling, one draining: every segment ends acknowledged, none is lost."""
    done = threading.Event()
    errors = []

    def drain():
        try:
            while not done.is_set() or cache.next_pending():
                if waiting := cache.next_pending():
                    assert cache.read(waiting) == content(waiting.first_txid)
                    upload(cache, waiting.first_txid)
                cache.trim(200)
        except Exception as error:  # noqa: BLE001 - reported below
            errors.append(error)

    thread = threading.Thread(target=drain)
    thread.start()
    for txid in range(1, 151):
        add(cache, txid)
    done.set()
    thread.join()
    assert errors == []
    assert cache.durable().last_txid == 150
    assert cache.pending_bytes() == 0
