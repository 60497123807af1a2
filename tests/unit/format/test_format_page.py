"""docs/format.md keeps its word: its commands restore, its tables are the bytes."""

import hashlib
import random
import re
import struct
import subprocess
import uuid
from pathlib import Path

import pytest
from xxhash import xxh64_intdigest

from replicator.archive.keys import Keys
from replicator.format.object_header import ObjectHeader
from replicator.format.page_hashes import PageHashes
from replicator.format.segment import SegmentEncoder, generation_marker
from replicator.format.snapshot_blocks import SnapshotEncoder, compress_block
from replicator.format.wal import HEADER_SIZE, Rebaser, parse_header, scan, transaction_ends
from replicator.model import Kind
from tests.helpers.oracle_wal import Source, overlay, read_wal

PAGE = Path(__file__).parents[3] / "docs" / "format.md"
KEYS = Keys("")
WRITER = str(uuid.UUID(int=1))
ONE, TWO, STRAY = (str(uuid.UUID(int=n << 64)) for n in (2, 3, 4))


class Bucket:
    """A directory of objects, made with the encoders from the log of a live database."""

    def __init__(self, directory):
        directory.joinpath("source").mkdir()
        self.source = Source(directory / "source", 1024)
        self.rng = random.Random(11)
        self.root = directory / "bucket"
        self.root.mkdir()
        self.txid = 0
        self.follow()

    def follow(self):
        """Begin at the start of the next log: the old one is in the database file."""
        self.source.checkpoint("RESTART")
        self.source.insert(self.rng, 50)  # the WAL restarts in the same file
        self.base, wal = self.source.files()
        self.position = parse_header(wal).start()

    def image(self):
        wal = self.source.files()[1]
        reading = read_wal(wal)
        return overlay(self.base, 1024, reading.frames[: reading.committed])

    def write(self, key, data):
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def header(self, kind, generation, first):
        return ObjectHeader(kind, generation, first, 1024, WRITER, 0, "test")

    def state(self, image):
        hashes = PageHashes(1024)
        hashes.extend(1, image)
        return hashes.state

    def snapshot(self, generation, txid, image):
        encoder = SnapshotEncoder(self.header(Kind.SNAPSHOT, generation, txid))
        out = encoder.start()
        for at in range(0, len(image), 16 * 1024):  # small frames, so that there are several
            part = image[at : at + 16 * 1024]
            out += encoder.add(compress_block(part, 3))
        self.write(
            KEYS.snapshot(txid, generation),
            out + encoder.finish(last_txid=txid, state=self.state(image))[0],
        )

    def begin(self, generation):
        """A generation's snapshot and marker, after everything captured so far."""
        self.capture()
        self.txid += 1
        image = self.image()
        self.snapshot(generation, self.txid, image)
        marker, _ = generation_marker(
            self.header(Kind.GENERATION, generation, self.txid), state=self.state(image)
        )
        self.write(KEYS.wal(self.txid), marker)
        self.generation = generation

    def capture(self):
        """The committed frames since the last call, as (re-based WAL, frames per commit)."""
        wal = self.source.files()[1]
        body = wal[HEADER_SIZE + self.position.frame * 1048 :]
        frames = scan(body, self.position)
        rebaser = Rebaser(self.position)
        out = rebaser.header + rebaser.feed(body, frames, frames.committed)
        self.position = frames.position(self.position)
        ends = transaction_ends(frames, frames.committed)
        return out, [end - start for start, end in zip([0, *ends], ends, strict=False)]

    def ship(self, key=KEYS.wal, kind=Kind.SEGMENT):
        """The commits since the last call, as one object."""
        payload, commits = self.capture()
        assert commits
        first, self.txid = self.txid + 1, self.txid + len(commits)
        encoder = SegmentEncoder(self.header(kind, self.generation, first), level=3)
        out = encoder.start() + encoder.write(payload)
        rest, _ = encoder.finish(
            last_txid=self.txid,
            state=self.state(self.image()),
            before=0,
            commit_frames=commits,
            commit_times_ms=range(len(commits)),
        )
        self.write(key(first), out + rest)


@pytest.fixture
def documented(tmp_path):
    """Two generations; segments of one and many transactions, over two WALs, with a VACUUM
    that shrinks; a snapshot inside a segment; a merge that replaces segments; an orphan."""
    documented = Bucket(tmp_path)
    source, rng = documented.source, documented.rng
    documented.begin(ONE)
    source.insert(rng, 5000, 3)
    documented.ship()
    documented.begin(TWO)
    for size in (100, 3000):
        source.insert(rng, size, 4)
        documented.ship()
    source.insert(rng, 500, 2)
    inside = documented.image()
    source.run("DELETE FROM item WHERE id % 3", "VACUUM")
    documented.ship()
    documented.snapshot(TWO, documented.txid - 2, inside)
    documented.follow()
    documented.ship(lambda first: KEYS.merged(1, first, first))
    source.insert(rng, 4000, 3)
    documented.ship()
    documented.snapshot(STRAY, documented.txid, bytes(4096))
    documented.snapshot(STRAY, documented.txid + 1, bytes(4096))
    yield documented
    source.close()


def commands():
    (block,) = re.findall(r"^```shell\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return block


def recover(bucket):
    done = subprocess.run(
        ["sh", "-eu", "-c", commands()], cwd=bucket.root, check=True, capture_output=True, text=True
    )
    assert done.stderr == ""
    return done.stdout.split()[-1], (bucket.root / "restored.db").read_bytes()


def test_the_commands_of_the_page_restore_the_newest_state(documented):
    """Page by page, with nothing but zstd, sqlite3 and a shell."""
    txid, restored = recover(documented)
    expected = documented.image()
    assert [restored[at : at + 1024] for at in range(0, len(restored), 1024)] == [
        expected[at : at + 1024] for at in range(0, len(expected), 1024)
    ]
    assert txid == str(documented.txid)
    assert not (documented.root / "restored.db-wal").exists()


def test_the_commands_work_from_every_snapshot(documented):
    """Without the newest usable one, the one before it leads to the same state."""
    newest = [
        path for path in sorted((documented.root / "snapshots").iterdir()) if TWO in path.name
    ][-1]
    newest.unlink()
    assert recover(documented) == (str(documented.txid), documented.image())


def test_the_commands_stop_at_a_gap(documented):
    """A missing object is never stepped over: the txid printed is the one reached."""
    gap = max((documented.root / "wal").iterdir())
    first = int(gap.name[:16], 16)
    gap.unlink()
    txid, restored = recover(documented)
    assert txid == str(first - 1)
    assert restored != documented.image()


def rows(title):
    """The (offset, size, field) rows of a table of the page; n and i are 0."""
    text = PAGE.read_text().split(f"### {title}\n", 1)[1].split("\n###", 1)[0]
    for offset, size, field in re.findall(r"^\| ([^|]+) \| (\w+) \| (.+) \|$", text, re.MULTILINE):
        if offset != "offset":
            yield sum(int(part) for part in re.findall(r"\d+", offset)), size, field


@pytest.mark.parametrize("title", ["Header frame", "Trailer frame"])
def test_the_fields_of_a_table_lie_side_by_side(title):
    """No byte of a frame is undescribed or described twice."""
    at = 0
    for offset, size, _ in rows(title):
        assert offset == at
        at += int(size) if size.isdigit() else 0


def test_header_and_trailer_have_the_bytes_the_page_gives(documented):
    """Read by the page's offsets, without the code under test."""
    path = sorted((documented.root / "wal").iterdir())[1]
    data = path.read_bytes()
    magic, length, name, version, kind, zero = struct.unpack_from("<II4sBBH", data)
    assert (magic, name, version, kind, zero) == (0x184D2A5A, b"RPLH", 1, 2, 0)
    assert data[16:32] == uuid.UUID(ONE).bytes
    assert data[32:48] == uuid.UUID(WRITER).bytes
    assert struct.unpack_from("<QQII", data, 48) == (int(path.name[:16], 16), 0, 1024, 4)
    assert data[72:76] == b"test"
    assert struct.unpack_from("<Q", data, 76) == (xxh64_intdigest(data[:76]),)
    assert 8 + length == 84

    seal, size, end = struct.unpack("<QI4s", data[-16:])
    trailer = data[-size:]
    assert end == b"RPLE"
    assert seal == xxh64_intdigest(trailer[:-16])
    magic, length, name, version, kind, zero = struct.unpack_from("<II4sBBH", trailer)
    assert (magic, 8 + length, name, version, kind, zero) == (0x184D2A5B, size, b"RPLT", 1, 2, 0)
    last, _, commits, times, index = struct.unpack_from("<QIIII", trailer, 16)
    assert (commits, times, index) == (3, 3, size - 128)
    assert last == int(path.name[:16], 16) + 2
    payload = subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True).stdout
    assert struct.unpack_from("<Q", trailer, 56) == (len(payload),)
    planes = subprocess.run(
        ["zstd", "-dc"], input=trailer[112:-16], capture_output=True, check=True
    ).stdout
    frames = [commit for _, commit, _ in read_wal(payload).frames]
    ends = [n + 1 for n, commit in enumerate(frames) if commit]
    assert planes[:3] == bytes([ends[0], ends[1] - ends[0], ends[2] - ends[1]])
    assert planes[3:] == bytes(9) + b"\1\1" + bytes(14)


def test_a_snapshot_proves_its_frames_as_the_page_says(documented):
    """Format 2: the digests of each frame and of its pages, under one SHA-256 with the header,
    read by the page's offsets and by the seek table."""
    largest = max((documented.root / "snapshots").iterdir(), key=lambda path: path.stat().st_size)
    data = largest.read_bytes()
    assert (data[12], data[13]) == (2, 1)
    (count,) = struct.unpack_from("<I", data, len(data) - 9)
    seek = data[-(9 + 8 * count) : -9]
    sizes = [struct.unpack_from("<II", seek, 8 * n) for n in range(count)]
    frames, at = [], 0
    for size, raw in sizes:
        frames += [(data[at : at + size], raw)] if raw else []
        at += size
    header = data[: sizes[0][0]]
    trailer = data[at - sizes[-1][0] : at]
    assert (trailer[12], trailer[13]) == (2, 1)
    (length,) = struct.unpack_from("<I", trailer, 36)
    index = trailer[112 : 112 + length]
    assert hashlib.sha256(header + index).digest() == trailer[80:112]
    assert index[:8] == header[56:64]  # all of it was sent when it was made
    assert len(frames) > 1
    assert length == 8 + 64 * len(frames)
    for number, (frame, raw) in enumerate(frames):
        pages = subprocess.run(["zstd", "-dc"], input=frame, capture_output=True, check=True).stdout
        assert len(pages) == raw
        expected = hashlib.sha256(frame).digest() + hashlib.sha256(pages).digest()
        assert index[8 + 64 * number :][:64] == expected


def test_every_kind_is_in_the_table():
    """With its value and its name as the metadata has it."""
    text = PAGE.read_text()
    for kind in Kind:
        assert f"| {int(kind)} | {kind.name.lower().replace('_', '-')} |" in text
