"""Objects that are intact as bytes but whose content contradicts itself or its name.

Such objects carry valid checksums everywhere: only the rules of the log give them away.
"""

import struct

import numpy as np
import pytest

from replicator import restore
from replicator.errors import DamageError, GapError
from replicator.format.envelope import encode_trailer
from replicator.format.segment import SegmentEncoder, decode_segment
from replicator.format.snapshot_blocks import SnapshotEncoder, compress_block
from replicator.format.wal import FrameBuilder, new_header
from replicator.model import DatabaseState, Kind
from replicator.recovery.segment import load_segment
from tests.helpers.bucket import BucketBuilder, commit_ms
from tests.helpers.errors import raises
from tests.helpers.restores import restore_with


@pytest.fixture
def forge(empty_bucket):
    """The segment of txid 2, written again with a changed payload or trailer."""
    empty_bucket.insert(3)
    key = empty_bucket.cut()
    summary, payload = decode_segment(empty_bucket.store.get(key), key)
    trailer = summary.trailer

    def forge(
        *,
        payload=payload,
        pages=trailer.pages,
        per_commit=trailer.commit_frames,
        header=None,
        last=2,
    ):
        encoder = SegmentEncoder(header or summary.header, level=3)
        body = encoder.start() + encoder.write(payload)
        rest, made = encoder.finish(
            last_txid=last,
            state=DatabaseState(pages, trailer.checksum_after),
            before=trailer.checksum_before,
            commit_frames=per_commit,
            commit_times_ms=[commit_ms(2)],
        )
        empty_bucket.store.put(key, body + rest, metadata=made.metadata(), if_absent=False)
        return key

    forge.payload, forge.header, forge.bucket = payload, summary.header, empty_bucket
    return forge


def fails(bucket, output, match, key, **limits):
    """The object is named, with what is wrong; no other snapshot is there to stand in for it."""
    for other in bucket.objects():
        if "/snapshots/" in key and "/snapshots/" in other and other != key:
            bucket.store.delete(other)
    with pytest.raises(DamageError, match=match) as error:
        restore_with(limits, store=bucket.store, output=output, overwrite=True)
    assert error.value.key == key
    assert not output.exists()


def frames(page_size=4096, *, commit=2, count=1, salts=(1, 2)):
    builder = FrameBuilder(page_size, salts=salts)
    return builder.header + builder.feed(
        np.arange(2, 2 + count, dtype=np.uint32), bytes(page_size * count), commit=commit
    )


def test_a_frame_that_breaks_the_chain(forge, tmp_path):
    """A payload with a wrong frame checksum names its segment."""
    bad = bytearray(forge.payload)
    bad[-1] ^= 1
    key = forge(payload=bytes(bad))
    fails(forge.bucket, tmp_path / "o", r"frame \d+ does not continue its checksums", key)


def test_a_payload_that_is_no_log(forge, tmp_path):
    """A payload that is no WAL names its segment."""
    key = forge(payload=b"x" * len(forge.payload))
    fails(forge.bucket, tmp_path / "o", "its payload is not a WAL", key)


def test_a_payload_of_another_page_size(forge, tmp_path):
    """4096-byte pages by the header, a log of 512-byte pages inside."""
    count = (4096 + 24) // 8
    log = new_header(512, salts=(1, 2)).encode() + bytes(8 * count)
    key = forge(payload=log, per_commit=(1,))
    fails(forge.bucket, tmp_path / "o", "its payload is not a WAL", key)


def test_a_log_that_ends_inside_a_transaction(forge, tmp_path):
    """A payload without a final commit names its segment."""
    key = forge(payload=frames(commit=0), per_commit=(1,))
    fails(forge.bucket, tmp_path / "o", "does not end a transaction", key)


def test_a_size_that_contradicts_the_last_commit(forge, tmp_path):
    """A trailer with another size than the last commit names its segment."""
    key = forge(pages=77)
    fails(forge.bucket, tmp_path / "o", "last commit contradicts its trailer", key)


def test_an_index_that_contradicts_the_commits(forge, tmp_path):
    """Two transactions by the index, one by the frames."""
    key = forge(payload=frames(count=2), per_commit=(1, 1), pages=2, last=3)
    fails(forge.bucket, tmp_path / "o", "index of transactions contradicts", key)


def test_another_page_size_than_the_snapshot(forge, tmp_path):
    """A segment with another page size than the snapshot is named."""
    header = type(forge.header)(
        Kind.SEGMENT, forge.header.generation, 2, 512, forge.header.writer, 0, "tests"
    )
    key = forge(payload=frames(512), per_commit=(1,), header=header, pages=2)
    fails(forge.bucket, tmp_path / "o", "pages have 512 bytes, those of the snapshot 4096", key)


def test_pieces_of_any_size(forge):
    """However the bytes of an object arrive, its frames are the same."""
    key = forge()
    body = forge.bucket.store.get(key)
    whole = load_segment(key, lambda: iter([body]), in_memory=1 << 20)
    for step in (1, 7, 1000):
        pieces = [body[at : at + step] for at in range(0, len(body), step)]
        found = load_segment(key, lambda pieces=pieces: iter(pieces), in_memory=1 << 20)
        assert found.frames.pages.tolist() == whole.frames.pages.tolist()
    assert [first for first, _, _ in whole.chunks(whole.frames.count)] == []


def test_chunks_from_the_middle(forge):
    """Chunks from any frame on are the same bytes, wherever the pieces were cut."""
    key = forge()
    segment = load_segment(key, lambda: iter([forge.bucket.store.get(key)]), in_memory=1 << 20)
    for start in range(segment.frames.count):
        data = b"".join(data for _, data, _ in segment.chunks(start))
        assert data == forge.payload[32 + start * 4120 :]


# ----------------------------------------------------------------------------------- snapshots


def forged_snapshot(bucket, *, header=None, frames=None, last=None, tamper=lambda body: body):
    """The snapshot of the newest txid, with changes."""
    image = bucket.images[bucket.txid]
    key = bucket.keys.snapshot(bucket.txid, bucket.generation)
    encoder = SnapshotEncoder(header or bucket._header(Kind.SNAPSHOT, bucket.txid))
    body = encoder.start()
    for raw in frames or [image]:
        body += encoder.add(compress_block(raw, 1))
    rest, summary = encoder.finish(last_txid=last or bucket.txid, state=bucket._hashes.state)
    bucket.store.put(key, tamper(body) + rest, metadata=summary.metadata(), if_absent=False)
    return key


@pytest.fixture
def grown(empty_bucket):
    """An archive with a snapshot and one segment."""
    empty_bucket.insert(50)
    empty_bucket.cut()
    return empty_bucket


def test_a_snapshot_of_another_generation_inside(grown, tmp_path):
    """The header must be of the generation and txid in the name."""
    other = type(grown._header(Kind.SNAPSHOT, 2))(
        Kind.SNAPSHOT,
        "1" * 8 + "-1111-1111-1111-" + "1" * 12,
        2,
        4096,
        "1" * 8 + "-1111-1111-1111-" + "1" * 12,
        0,
        "tests",
    )
    key = forged_snapshot(grown, header=other)
    fails(grown, tmp_path / "o", "does not match its name", key)


def test_a_snapshot_of_another_txid_inside(grown, tmp_path):
    """A snapshot with another txid than its key is named."""
    key = forged_snapshot(grown, last=1)
    fails(grown, tmp_path / "o", "does not match its name", key)


def test_frames_that_cut_pages(grown, tmp_path):
    """A snapshot whose blocks cut pages is named."""
    image = grown.images[2]
    key = forged_snapshot(grown, frames=[image[:5000], image[5000:]])
    fails(grown, tmp_path / "o", "seek table does not describe its pages", key)


def test_blocks_too_large(grown, tmp_path):
    """A snapshot with blocks above the limit is named."""
    key = forged_snapshot(grown)
    problem = "seek table does not describe its pages"
    fails(grown, tmp_path / "o", problem, key, most_block_bytes=4096)


def test_a_segment_in_place_of_a_snapshot(grown, tmp_path):
    """An object of another kind under a snapshot's name."""
    key = forged_snapshot(grown)
    segment = grown.keys.wal(2)
    grown.store.put(key, grown.store.get(segment), if_absent=False)
    fails(grown, tmp_path / "o", "does not match its name", key)


@pytest.mark.parametrize("behind", ["header", "pages"])
def test_bytes_that_are_no_pages(grown, tmp_path, behind):
    """A seek table that leaves bytes out is not believed."""
    key = forged_snapshot(grown)
    body = grown.store.get(key)
    tail = snapshot_tail(body, key)
    filler = struct.pack("<II", 0x184D2A5C, 4) + b"fill"
    at = tail.seek[0].offset if behind == "header" else tail.trailer_offset
    grown.store.put(key, rebuilt(body, tail, at, filler), if_absent=False)
    fails(grown, tmp_path / "o", "seek table does not cover its data", key)


def snapshot_tail(body, key):
    from replicator.format.envelope import read_tail

    return read_tail(body, len(body), key)


def rebuilt(body, tail, at, filler):
    """The object with ``filler`` behind its header, and a seek table that counts it as a frame
    without pages."""
    import dataclasses
    import hashlib

    from xxhash import xxh64_intdigest

    from replicator.format.seek_table import encode_seek_table

    data = body[:at] + filler + body[at : tail.trailer_offset]
    pages = [(entry.compressed, entry.raw) for entry in tail.seek]
    head, gap = (tail.seek[0].offset, 0), (len(filler), 0)
    frames = [head, gap, *pages] if at == head[0] else [head, *pages, gap]
    length = len(encode_trailer(tail.kind, tail.trailer))
    seek = encode_seek_table([*frames, (length, 0)])
    trailer = dataclasses.replace(
        tail.trailer, seek_xxh64=xxh64_intdigest(seek), data_sha256=hashlib.sha256(data).digest()
    )
    return data + encode_trailer(tail.kind, trailer) + seek


# ------------------------------------------------------------------------------ trust and facts


def test_snapshots_left_of_a_pruned_log(empty_bucket, tmp_path):
    """Where retention kept a snapshot and no log around it, it stands on its own; a later
    target still needs the log."""
    for _ in range(3):
        empty_bucket.insert(5)
        empty_bucket.cut()
        empty_bucket.snapshot()
    for txid in (1, 2, 3):
        empty_bucket.store.delete(empty_bucket.keys.wal(txid))
    for txid in (1, 2, 4):
        report = restore(
            store=empty_bucket.store,
            prefix="app.db",
            output=tmp_path / "o",
            overwrite=True,
            txid=txid,
        )
        assert (tmp_path / "o").read_bytes() == empty_bucket.images[txid]
        assert report.objects == 1
    empty_bucket.store.delete(empty_bucket.keys.snapshot(3, empty_bucket.generation))
    with raises(GapError, first_missing=3, last_missing=3, restorable=(1, 4)):
        restore(
            store=empty_bucket.store, prefix="app.db", output=tmp_path / "o", txid=3, overwrite=True
        )


def test_metadata_of_another_object(empty_bucket, tmp_path):
    """Metadata that does not fit the name is not believed; the object itself is read. If that
    is another one too, it is named."""
    for _ in range(2):
        empty_bucket.insert(5)
        empty_bucket.cut()
    empty_bucket.snapshot()
    first, last = empty_bucket.keys.wal(2), empty_bucket.keys.wal(3)
    foreign = empty_bucket.store.head(first).metadata
    empty_bucket.store.put(last, empty_bucket.store.get(last), metadata=foreign, if_absent=False)
    report = restore(store=empty_bucket.store, prefix="app.db", output=tmp_path / "o")
    assert report.txid == 3
    empty_bucket.store.put(last, empty_bucket.store.get(first), metadata=foreign, if_absent=False)
    with raises(DamageError, "other_object", key="app.db/wal/0000000000000003.wal.zst"):
        restore(store=empty_bucket.store, prefix="app.db", output=tmp_path / "o2")


def test_a_very_long_tail(tmp_path):
    """A snapshot whose seek table is longer than the first request is read by a second one."""
    (tmp_path / "source").mkdir()
    bucket = BucketBuilder(tmp_path / "source", page_size=512)
    bucket.insert(18_000, 300)
    bucket.cut()
    bucket.snapshot(frame_bytes=512)
    report = restore(store=bucket.store, prefix="app.db", output=tmp_path / "o")
    assert report.objects == 1
    assert (tmp_path / "o").read_bytes() == bucket.images[2]
    bucket.close()
