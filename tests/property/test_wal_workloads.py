"""Random histories of a real database: reading, re-basing and hashing agree with SQLite."""

import random
import tempfile

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replicator.format.page_hashes import PageHashes
from replicator.format.wal import HEADER_SIZE, Rebaser, parse_header, scan
from tests.helpers.oracle_wal import Source, overlay, read_wal, rewrite_big_endian, sqlite_image
from tests.helpers.page_hashes import apply_frames

OPERATIONS = st.lists(
    st.sampled_from(
        [
            "insert",
            "insert",
            "insert many",
            "update",
            "delete",
            "vacuum",
            "rollback",
            "savepoint",
            "PASSIVE",
            "RESTART",
            "TRUNCATE",
            "empty",
        ]
    ),
    min_size=5,
    max_size=15,
)
histories = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def perform(source, operation, rng):
    match operation:
        case "insert":
            source.insert(rng, rng.choice((10, 300, 5000)))
        case "insert many":
            source.run("BEGIN")
            source.insert(rng, source.page_size, 15)
            source.run("COMMIT")
        case "update":
            source.run("UPDATE item SET body = zeroblob(length(body)) WHERE id % 3 = 1")
        case "delete":
            source.run("DELETE FROM item WHERE id % 2")
        case "empty":
            source.run("DELETE FROM item")
        case "vacuum":
            source.run("VACUUM")
        case "rollback":
            source.run("BEGIN")
            source.insert(rng, source.page_size, 15)
            source.run("ROLLBACK")
        case "savepoint":
            source.run("BEGIN", "SAVEPOINT a")
            source.insert(rng, source.page_size, 15)
            source.run("ROLLBACK TO a")
            source.insert(rng, 30)
            source.run("COMMIT")
        case mode:
            source.checkpoint(mode)


def history(directory, data):
    """A database with a random history; some checkpoints truncate its WAL."""
    page_size = data.draw(st.sampled_from([512, 1024, 4096]))
    source = Source(
        directory,
        page_size,
        auto_vacuum=data.draw(st.sampled_from([0, 1])),
        cache_pages=data.draw(st.sampled_from([4, 2000])),
    )
    rng = random.Random(data.draw(st.integers(0, 99)))
    try:
        for operation in data.draw(OPERATIONS):
            perform(source, operation, rng)
        source.insert(rng, 100)  # so that the log is not empty
        return source.files()
    finally:
        source.close()


@histories
@given(st.data())
def test_any_prefix_of_any_history(data):
    """The database at a random cut through a random log is the one SQLite recovers."""
    with tempfile.TemporaryDirectory() as directory:
        base, wal = history(directory, data)
        wal = wal[: data.draw(st.integers(0, len(wal)))]
        header = parse_header(wal)
        ours = base
        if header is not None:
            body = memoryview(wal)[HEADER_SIZE:]
            frames = scan(body, header.start())
            reading = read_wal(wal)
            assert frames.committed == reading.committed
            assert frames.pages.tolist() == [pgno for pgno, _, _ in reading.frames]
            ours = overlay(base, header.page_size, reading.frames[: frames.committed])
        assert ours == sqlite_image(directory, base, wal)


@histories
@given(st.data())
def test_any_slice_becomes_a_log_of_its_own(data):
    """A slice that begins at a commit, re-based in random pieces, is a WAL file from which
    SQLite recovers exactly the slice, over the state before it."""
    with tempfile.TemporaryDirectory() as directory:
        base, wal = history(directory, data)
        if data.draw(st.booleans()) and parse_header(wal):
            wal = rewrite_big_endian(wal)
        header = parse_header(wal)
        if header is None:
            return
        reading = read_wal(wal)
        ends = [0] + [n + 1 for n, (_, commit, _) in enumerate(reading.frames) if commit]
        first = data.draw(st.sampled_from(ends))
        before = overlay(base, header.page_size, reading.frames[:first])
        start = scan(memoryview(wal)[HEADER_SIZE:], header.start()).position(header.start(), first)
        rebaser = Rebaser(start)
        out, at = rebaser.header, first
        while at < reading.committed:
            until = data.draw(st.integers(at + 1, reading.committed))
            piece = wal[header.offset(at) : header.offset(until)]
            frames = scan(piece, start)
            out += rebaser.feed(piece, frames, frames.count)
            start, at = frames.position(start, frames.count), until
        after = overlay(base, header.page_size, reading.frames[: reading.committed])
        assert sqlite_image(directory, before, out) == after
        remade = parse_header(out)
        assert scan(out[HEADER_SIZE:], remade.start()).position(remade.start()) == rebaser.position


@histories
@given(st.data())
def test_hashes_follow_the_log(data):
    """Applying random runs of transactions gives the hashes of the image SQLite recovers."""
    with tempfile.TemporaryDirectory() as directory:
        base, wal = history(directory, data)
        header = parse_header(wal)
        if header is None:
            return
        hashes = PageHashes(header.page_size)
        hashes.extend(1, base)
        position = header.start()
        body = memoryview(wal)[HEADER_SIZE:]
        rest = scan(body, position)
        while rest.committed:
            ends = (np.flatnonzero(rest.commits) + 1).tolist()
            count = data.draw(st.sampled_from(ends))
            apply_frames(hashes, rest, count, body)
            position = rest.position(position, count)
            body = body[count * header.frame_size :]
            rest = scan(body, position)
        expected = PageHashes(header.page_size)
        expected.extend(1, sqlite_image(directory, base, wal))
        assert hashes.state == expected.state
        assert hashes.to_bytes() == expected.to_bytes()
