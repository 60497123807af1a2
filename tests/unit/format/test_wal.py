"""The log's header, re-based slices, and logs made from page images."""

import random
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.format.wal import (
    FRAME_HEADER_SIZE,
    HEADER_SIZE,
    FrameBuilder,
    Frames,
    Rebaser,
    frame_header,
    new_header,
    newest,
    parse_header,
    rewritten,
    scan,
    transaction_ends,
)
from tests.helpers.oracle_wal import (
    overlay,
    plain_sum,
    read_wal,
    recorded,
    rewrite_big_endian,
    spilled_and_rolled_back,
    sqlite_image,
)
from tests.helpers.sample_wals import PAGE, TRANSACTIONS, build

SALTS = (0xDEADBEEF, 7)


@pytest.fixture(scope="module")
def spilled_wal(tmp_path_factory):
    """A database and its WAL with spilled and rolled back frames."""
    return recorded(tmp_path_factory.mktemp("log"), 1024, spilled_and_rolled_back)


def pages(count, size, seed=3):
    return random.Random(seed).randbytes(count * size)


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
@pytest.mark.parametrize("big_endian", [False, True])
def test_header_round_trip(page_size, big_endian):
    """A made header reads back as itself, and the independent reader accepts it."""
    header = new_header(page_size, salts=SALTS, sequence=9, big_endian=big_endian)
    data = header.encode()
    assert len(data) == HEADER_SIZE
    assert parse_header(data) == header
    assert read_wal(data).frames == []
    assert header.offset(3) == HEADER_SIZE + 3 * (page_size + FRAME_HEADER_SIZE)
    assert header.start().checksum == header.checksum
    assert header.start().frame == 0


def test_header_of_sqlite_reads_and_encodes_to_the_same_bytes(spilled_wal):
    """A header from SQLite survives parse and encode."""
    _, wal = spilled_wal
    assert parse_header(wal).encode() == wal[:HEADER_SIZE]
    assert parse_header(memoryview(wal)).page_size == 1024


def sealed(words):
    fields = struct.pack(">6I", *words)
    return fields + struct.pack(">2I", *plain_sum(fields, words[0] & 1))


@pytest.mark.parametrize(
    "words",
    [
        (0x377F0680, 3007000, 4096, 0, 1, 2),
        (0x377F0682, 3007001, 4096, 0, 1, 2),
        (0x377F0682, 3007000, 256, 0, 1, 2),
        (0x377F0682, 3007000, 1000, 0, 1, 2),
        (0x377F0682, 3007000, 131072, 0, 1, 2),
        (0x377F0682, 3007000, 0, 0, 1, 2),
    ],
)
def test_a_header_is_refused_for_what_it_says(words):
    """Wrong magic, version or page size, though its checksum is right."""
    assert parse_header(sealed((0x377F0682, 3007000, 4096, 0, 1, 2))) is not None
    assert parse_header(sealed(words)) is None


def test_every_flipped_bit_and_every_truncation_of_a_header_is_refused():
    """All 256 bits, all 32 shorter lengths."""
    data = new_header(4096, salts=SALTS).encode()
    for bit in range(8 * HEADER_SIZE):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        assert parse_header(flipped) is None
    assert all(parse_header(data[:length]) is None for length in range(HEADER_SIZE))


def test_frame_header_fields(spilled_wal):
    """Page number, commit size, salts and checksum as the independent reader has them."""
    _, wal = spilled_wal
    header, reading = parse_header(wal), read_wal(wal)
    parsed = frame_header(wal[HEADER_SIZE : HEADER_SIZE + FRAME_HEADER_SIZE])
    pgno, commit, _ = reading.frames[0]
    assert parsed == (pgno, commit, header.salt1, header.salt2, reading.checksums[0])


def test_positions(spilled_wal):
    """The position after n frames carries their number and the n-th checksum; the default is
    the last commit; 0 frames is the base itself."""
    _, wal = spilled_wal
    start, reading = parse_header(wal).start(), read_wal(wal)
    frames = scan(wal[HEADER_SIZE:], start)
    assert frames.position(start, 0) is start
    assert frames.position(start, 2).frame == 2
    assert frames.position(start, 2).checksum == reading.checksums[1]
    assert frames.position(start).frame == reading.committed


def test_scan_continues_from_any_position(spilled_wal):
    """From every frame on, the scan finds the rest, and the same positions."""
    _, wal = spilled_wal
    header = parse_header(wal)
    whole = scan(wal[HEADER_SIZE:], header.start())
    for n in range(whole.count + 1):
        position = whole.position(header.start(), n)
        rest = scan(wal[header.offset(n) :], position)
        assert rest.count == whole.count - n
        assert rest.pages.tolist() == whole.pages[n:].tolist()
        if rest.committed:
            assert rest.position(position) == whole.position(header.start())


def test_scan_refuses_frames_under_other_salts(spilled_wal):
    """The same bytes are nothing to a position of another log, by either salt."""
    _, wal = spilled_wal
    start = parse_header(wal).start()
    for other in (replace(start, salt1=start.salt1 ^ 1), replace(start, salt2=start.salt2 ^ 1)):
        assert scan(wal[HEADER_SIZE:], other).count == 0


def test_scan_takes_any_buffer_at_any_alignment(spilled_wal):
    """Bytes, bytearrays, and views that begin at an odd address."""
    _, wal = spilled_wal
    start = parse_header(wal).start()
    count = scan(wal[HEADER_SIZE:], start).count
    assert count > 0
    assert scan(bytearray(wal[HEADER_SIZE:]), start).count == count
    assert scan(memoryview(b"x" + wal)[HEADER_SIZE + 1 :], start).count == count


def test_scan_crosses_its_blocks():
    """A log longer than several blocks of the scan is valid to its end, and a flipped bit in
    any block ends it right there."""
    builder = FrameBuilder(65536, salts=SALTS)
    body = builder.feed(np.arange(1, 12, dtype=np.uint32), pages(11, 65536), commit=11)
    start = parse_header(builder.header).start()
    assert scan(body, start).committed == 11
    for frame in range(11):
        flipped = bytearray(body)
        flipped[frame * 65560 + 5000] ^= 16
        assert scan(flipped, start).count == frame
        assert scan(flipped, start).committed == 0


def test_nothing_is_committed_without_a_commit_frame():
    """Valid frames count as valid, not as committed."""
    builder = FrameBuilder(512, salts=SALTS)
    body = builder.feed(np.array([1, 2], np.uint32), pages(2, 512))
    frames = scan(body, parse_header(builder.header).start())
    assert (frames.count, frames.committed) == (2, 0)
    assert transaction_ends(frames, 2) == []


def test_transaction_ends_count_the_frames_up_to_each_commit():
    """Among the first so many frames only."""
    builder = FrameBuilder(512, salts=SALTS)
    body = b"".join(
        builder.feed(np.arange(1, n + 1, dtype=np.uint32), pages(n, 512), commit=9)
        for n in (2, 1, 3)
    )
    frames = scan(body, parse_header(builder.header).start())
    assert transaction_ends(frames, 6) == [2, 3, 6]
    assert transaction_ends(frames, 5) == [2, 3]


@pytest.mark.parametrize("rewrite", [bytes, rewrite_big_endian])
def test_frames_of_other_logs_are_carried_into_one(spilled_wal, rewrite):
    """Two logs with salts (and a byte order) of their own, in pieces: one valid log that holds
    their pages, numbers and commits in order."""
    _, wal = spilled_wal
    body = rewrite(wal)[HEADER_SIZE:]
    source = scan(body, parse_header(rewrite(wal)).start())
    whole = body[: source.committed * 1048]
    builder = FrameBuilder(1024, salts=SALTS)
    out = builder.carry(b"") + builder.carry(wal[HEADER_SIZE : HEADER_SIZE + len(whole)])
    out += builder.carry(whole[: 3 * 1048]) + builder.carry(whole[3 * 1048 :])
    found = scan(out, parse_header(builder.header).start())
    assert found.count == found.committed == 2 * source.committed
    assert found.position(parse_header(builder.header).start()) == builder.position
    for half in (out[: len(whole)], out[len(whole) :]):
        for at in range(0, len(whole), 1048):
            assert half[at : at + 8] == whole[at : at + 8]
            assert half[at + 24 : at + 1048] == whole[at + 24 : at + 1048]


@pytest.mark.parametrize("rewrite", [bytes, rewrite_big_endian])
def test_rebased_from_the_start_is_the_source_itself(spilled_wal, rewrite):
    """With the header's own sequence the bytes do not change."""
    _, wal = spilled_wal
    wal = rewrite(wal)
    header = parse_header(wal)
    frames = scan(wal[HEADER_SIZE:], header.start())
    rebaser = Rebaser(header.start(), sequence=header.sequence)
    out = rebaser.header + rebaser.feed(wal[HEADER_SIZE:], frames, frames.committed)
    assert out == wal[: header.offset(frames.committed)]
    assert rebaser.position == frames.position(header.start())


@pytest.mark.parametrize("rewrite", [bytes, rewrite_big_endian])
def test_rebased_slice_is_recovered_by_sqlite(tmp_path, spilled_wal, rewrite):
    """A slice from the middle of a log, re-based frame by frame or at once, is the same file,
    keeps its byte order, and makes of the state before it the state after it."""
    base, wal = spilled_wal
    wal = rewrite(wal)
    header, reading = parse_header(wal), read_wal(wal)
    first = transaction_ends(scan(wal[HEADER_SIZE:], header.start()), reading.committed)[0]
    start = scan(wal[HEADER_SIZE:], header.start()).position(header.start(), first)
    body = wal[header.offset(first) :]
    frames = scan(body, start)
    at_once = Rebaser(start)
    out = at_once.header + at_once.feed(body, frames, frames.committed)
    assert parse_header(out).big_endian == header.big_endian
    before = overlay(base, 1024, reading.frames[:first])
    after = overlay(base, 1024, reading.frames[: reading.committed])
    assert sqlite_image(tmp_path, before, out) == after != before

    one_by_one, pieces, size = Rebaser(start), b"", header.frame_size
    for n in range(frames.committed):
        piece = body[n * size : (n + 1) * size]
        read = scan(piece, frames.position(start, n))
        pieces += one_by_one.feed(piece, read, 1)
    assert one_by_one.header + pieces == out
    assert one_by_one.position == at_once.position


def test_rebasing_no_frames_is_no_bytes(spilled_wal):
    """And moves nothing."""
    _, wal = spilled_wal
    start = parse_header(wal).start()
    rebaser = Rebaser(start)
    before = rebaser.position
    assert rebaser.feed(b"", scan(b"", start), 0) == b""
    assert rebaser.position == before


@pytest.mark.parametrize("big_endian", [False, True])
def test_a_built_log_is_recovered_by_sqlite(tmp_path, spilled_wal, big_endian):
    """Every page of a state, fed in two pieces with one commit at the end, turns any database
    of that page size into it."""
    base, wal = spilled_wal
    reading = read_wal(wal)
    target = overlay(base, 1024, reading.frames[: reading.committed])
    count = len(target) // 1024
    pgnos = np.arange(1, count + 1, dtype=np.uint32)
    builder = FrameBuilder(1024, salts=SALTS, big_endian=big_endian)
    out = builder.header + builder.feed(pgnos[:1], target[:1024])
    out += builder.feed(pgnos[1:], target[1024:], commit=count)
    assert sqlite_image(tmp_path, base, out) == target != base
    start = parse_header(out).start()
    assert builder.position == scan(out[HEADER_SIZE:], start).position(start)


def test_a_commit_needs_a_frame():
    """Nothing to write is nothing; a commit without a page is a mistake."""
    builder = FrameBuilder(512, salts=SALTS)
    none = np.zeros(0, np.uint32)
    assert builder.feed(none, b"") == b""
    with pytest.raises(ValueError, match="a commit needs a frame"):
        builder.feed(none, b"", commit=3)


def test_newest_leaves_out_pages_a_later_commit_cut_off():
    """Page 5 is written, cut off by a commit of 3 pages, and does not come back; page 2 keeps
    its newest image; page 4 is written again after the cut."""
    builder = FrameBuilder(512, salts=SALTS)
    body = b"".join(
        [
            builder.feed(np.array([2, 5, 4], np.uint32), pages(3, 512), commit=5),
            builder.feed(np.array([2], np.uint32), pages(1, 512), commit=3),
            builder.feed(np.array([4, 6], np.uint32), pages(2, 512), commit=6),
        ]
    )
    frames = scan(body, parse_header(builder.header).start())
    pgnos, indexes = newest(frames, 6)
    assert (pgnos.tolist(), indexes.tolist()) == ([2, 4, 6], [3, 4, 5])
    pgnos, indexes = newest(frames, 3)
    assert (pgnos.tolist(), indexes.tolist()) == ([2, 4, 5], [0, 2, 1])


@pytest.mark.parametrize(("again", "answer"), [([], False), ([1], False), ([1, 2], True)])
def test_pages_count_as_rewritten_from_a_sixteenth_on(again, answer):
    """Whichever of the runs they are in."""
    builder = FrameBuilder(512, salts=SALTS)
    runs = []
    for pgnos in (list(range(1, 31)), again):
        base = builder.position
        body = builder.feed(
            np.array(pgnos, np.uint32), pages(len(pgnos), 512), commit=30 if pgnos else 0
        )
        runs.append(scan(body, base))
    assert rewritten(runs) is answer
    assert rewritten([]) is False


@given(TRANSACTIONS, st.data())
def test_scans_join_and_split(transactions, data):
    """Scanning in pieces and joining equals scanning at once; the rest is after the head."""
    body, plain = build(transactions)
    start = new_header(PAGE, salts=(1, 2)).start()
    whole = scan(body, start)
    at = data.draw(st.integers(0, whole.count))
    head = scan(body[: at * (PAGE + 24)], start)
    rest = scan(body[at * (PAGE + 24) :], head.position(start, at))
    joined, after = Frames.joined([head, rest]), whole.after(at)
    assert (
        (joined.count, joined.committed)
        == (whole.count, whole.committed)
        == (len(plain), len(plain))
    )
    assert joined.pages.tolist() == whole.pages.tolist()
    assert joined.commits.tolist() == whole.commits.tolist()
    assert (after.count, after.pages.tolist()) == (rest.count, rest.pages.tolist())
    assert after.committed == rest.committed


def test_sizes_are_those_that_commits_leave():
    """The last and the smallest; None among frames that commit nothing."""
    builder = FrameBuilder(512, salts=SALTS)
    start = builder.position
    body = b"".join(
        builder.feed(np.array([1, 2], np.uint32), pages(2, 512), commit=size) for size in (5, 3, 4)
    )
    frames = scan(body, start)
    assert [frames.sizes(count) for count in range(7)] == [
        None,
        None,
        (5, 5),
        (5, 5),
        (3, 3),
        (3, 3),
        (4, 3),
    ]
