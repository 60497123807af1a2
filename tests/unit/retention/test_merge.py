"""Merges: what is made of several objects, and when nothing may be."""

import sqlite3
import subprocess

import pytest

from replicator.errors import DamageError
from replicator.format.object_header import ObjectHeader
from replicator.format.segment import decode_segment
from replicator.model import DatabaseState, Kind
from replicator.retention.merge import MergeSource, Unmergeable, merge_all, merge_newest
from replicator.upload.fencing import archive_head, claim
from tests.helpers.errors import raises
from tests.helpers.retention import KEYS, MINUTE, AgedArchive


@pytest.fixture(params=[512, 4096])
def shrunk(tmp_path, request):
    """Inserts, a shrink, a vacuum and a growth over the hole, in segments of one to three."""
    made = AgedArchive(tmp_path, page_size=request.param)
    for n in range(4):
        made.insert(30, cut=n % 2)
        made.wait(MINUTE)
    made.run("DELETE FROM t WHERE id > 5")
    made.run("VACUUM")
    made.cut()
    made.insert(90, cut=False)
    made.run("UPDATE t SET body = randomblob(300)")
    made.cut()
    yield made
    made.close()


def sources(past, keys=None):
    keys = past.keys("wal/")[1:] if keys is None else keys
    return [MergeSource(key, 0, 0, lambda key=key: past.store.get(key)) for key in keys]


def made(make, past, keys=None):
    return make(sources(past, keys), created_by="tests", level=3)


def applied(tmp_path, image, wal):
    """What SQLite itself makes of an image and a WAL file."""
    path = tmp_path / "applied.db"
    path.write_bytes(image)
    path.with_name("applied.db-wal").write_bytes(wal)
    db = sqlite3.connect(path)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    db.close()
    return path.read_bytes()


@pytest.mark.parametrize(
    ("make", "kind"), [(merge_all, Kind.MERGE), (merge_newest, Kind.MERGE_NEWEST)]
)
def test_a_merge_leads_where_its_sources_lead(tmp_path, shrunk, make, kind):
    """SQLite makes of it the same file, byte for byte; header and trailer describe it."""
    merge = made(make, shrunk)
    summary, wal = decode_segment(merge.body, "k")
    assert (summary.header.kind, summary.header.first_txid, summary.trailer.last_txid) == (
        kind,
        2,
        shrunk.txid,
    )
    assert summary == merge.summary
    assert applied(tmp_path, shrunk.images[1], wal) == shrunk.images[shrunk.txid]


def test_every_transaction_stays(tmp_path, shrunk):
    """Cut after any of its transactions, the WAL leads to exactly that state; times are kept."""
    summary, wal = decode_segment(made(merge_all, shrunk).body, "k")
    end = 32
    width = shrunk.bucket.page_size + 24
    for txid, frames in enumerate(summary.trailer.commit_frames, 2):
        end += frames * width
        assert applied(tmp_path, shrunk.images[1], wal[:end]) == shrunk.images[txid]
    assert summary.trailer.commit_times_ms == tuple(
        shrunk.times[txid] for txid in range(2, shrunk.txid + 1)
    )


def test_the_newest_images_alone(shrunk):
    """No page twice, and less than with every transaction."""
    newest, every = made(merge_newest, shrunk), made(merge_all, shrunk)
    assert newest.summary.trailer.payload_bytes < every.summary.trailer.payload_bytes
    assert newest.summary.trailer.commit_frames == ()
    times = newest.summary.trailer.commit_times_ms
    assert times == (shrunk.times[2], shrunk.times[shrunk.txid])


def test_the_same_sources_make_the_same_bytes(shrunk):
    """A merge begun again after a crash is the same object."""
    for make in (merge_all, merge_newest):
        assert made(make, shrunk).body == made(make, shrunk).body


def claimed(past):
    """Another writer claims the log by a transaction without frames. Returns its key."""
    head = archive_head(past.store, KEYS)
    header = ObjectHeader(
        Kind.CATCH_UP,
        head.generation,
        head.last_txid + 1,
        head.page_size,
        head.writer,
        past.now_ms,
        "tests",
    )
    assert claim(past.store, KEYS, head, header, {})
    return KEYS.wal(header.first_txid)


@pytest.mark.parametrize("alone", [True, False])
def test_claims_can_be_merged(tmp_path, shrunk, alone):
    """One after another, and with what comes before: they change nothing."""
    before = shrunk.keys("wal/")[-1:]
    claims = [claimed(shrunk), claimed(shrunk)]
    merge = made(merge_newest, shrunk, claims if alone else before + claims)
    summary, wal = decode_segment(merge.body, "k")
    assert summary.trailer.last_txid == shrunk.txid + 2
    assert applied(tmp_path, shrunk.images[shrunk.txid], wal) == shrunk.images[shrunk.txid]


def test_merges_can_be_merged(tmp_path, shrunk):
    """Two of level 1 beside a segment, as those of five minutes become that of an hour."""
    keys = shrunk.keys("wal/")[1:]
    parts = []
    for at, some in enumerate((keys[:2], keys[2:])):
        merge = made(merge_all, shrunk, some)
        parts.append(MergeSource(f"m{at}", 0, 0, lambda body=merge.body: body))
    merge = merge_newest(parts, created_by="tests", level=3)
    _, wal = decode_segment(merge.body, "k")
    assert applied(tmp_path, shrunk.images[1], wal) == shrunk.images[shrunk.txid]
    assert merge_all(parts, created_by="tests", level=3).body == made(merge_all, shrunk).body


def test_stock_tools_read_a_merge(tmp_path, shrunk):
    """zstd decompresses it to a WAL file."""
    stored = tmp_path / "m.wal.zst"
    stored.write_bytes(made(merge_all, shrunk).body)
    subprocess.run(["zstd", "-d", "-q", str(stored)], check=True)
    assert (
        applied(tmp_path, shrunk.images[1], (tmp_path / "m.wal").read_bytes())
        == (shrunk.images[shrunk.txid])
    )


@pytest.mark.parametrize("make", [merge_all, merge_newest])
def test_no_merge_across_a_hole(shrunk, make):
    """What does not follow is refused, with what was learnt of it."""
    keys = shrunk.keys("wal/")[1:]
    with pytest.raises(Unmergeable, match="does not follow") as caught:
        made(make, shrunk, [keys[0], keys[2]])
    assert [content.key for content in caught.value.contents] == [keys[0], keys[2]]


@pytest.mark.parametrize("make", [merge_all, merge_newest])
def test_no_merge_across_the_start_of_a_generation(shrunk, make):
    """Its marker cannot be part of one, and its segments follow nothing before them."""
    shrunk.start_generation()
    shrunk.insert(3)
    keys = shrunk.keys("wal/")
    with pytest.raises(Unmergeable, match="cannot be part"):
        made(make, shrunk, keys[-2:])
    with pytest.raises(Unmergeable, match="does not follow"):
        made(make, shrunk, [keys[-3], keys[-1]])


def test_a_merge_of_every_transaction_takes_none_that_lost_some(shrunk):
    """A squashed segment or a merge of newest images has no index to keep."""
    shrunk.insert(3, cut=False)
    shrunk.run("UPDATE t SET body = randomblob(300)")
    shrunk.bucket.squash()
    shrunk.insert(3)
    keys = shrunk.keys("wal/")[-2:]
    with pytest.raises(Unmergeable, match="cannot be part"):
        made(merge_all, shrunk, keys)


@pytest.mark.parametrize("make", [merge_all, merge_newest])
def test_a_damaged_source_is_named(shrunk, make):
    """No merge is made of it."""
    keys = shrunk.keys("wal/")[1:]
    body = bytearray(shrunk.store.get(keys[1]))
    body[len(body) // 2] ^= 1
    shrunk.store.put(keys[1], bytes(body), if_absent=False)
    with pytest.raises(DamageError) as caught:
        made(make, shrunk)
    assert caught.value.key == keys[1]


@pytest.mark.parametrize("make", [merge_all, merge_newest])
def test_a_source_of_another_history_is_damage(shrunk, make):
    """Same numbers and generation, other bytes before it: the checksums tell."""
    keys = shrunk.keys("wal/")[1:]
    bodies = {key: shrunk.store.get(key) for key in keys}
    summary, wal = decode_segment(bodies[keys[1]], keys[1])
    trailer = summary.trailer
    state = DatabaseState(trailer.pages, trailer.checksum_after)
    body, _ = shrunk.bucket.encode(
        Kind.SEGMENT,
        summary.header.first_txid,
        trailer.last_txid,
        wal,
        state,
        trailer.checksum_before ^ 1,
        trailer.commit_frames,
        trailer.commit_times_ms,
    )
    shrunk.store.put(keys[1], body, if_absent=False)
    with raises(DamageError, "discontinuous", key="app.db/wal/0000000000000004.wal.zst") as caught:
        made(make, shrunk)
    assert caught.value.key == keys[1]


def test_nothing_is_no_merge(shrunk):
    """A mistake of the caller."""
    for make in (merge_all, merge_newest):
        with pytest.raises(Unmergeable, match="nothing"):
            made(make, shrunk, [])
