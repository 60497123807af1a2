"""Which images count: forwards into one transaction, and backwards into a database."""

from functools import partial

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from replicator.format.database import lock_page
from replicator.format.latest_pages import Overlay, newest_images, runs
from replicator.format.page_hashes import page_hashes
from replicator.format.wal import new_header, scan
from tests.helpers.oracle_wal import read_wal
from tests.helpers.sample_wals import PAGE, TRANSACTIONS, build, page, replay

START = new_header(PAGE, salts=(1, 2)).start()


def chunks_of(bodies, split):
    """The frames of log bodies in pieces, as a reader of objects gives them."""
    for body in bodies:
        whole = scan(body, START)
        cut = min(split, whole.count)
        first = scan(body[: cut * (PAGE + 24)], START)
        if cut:
            yield body[: cut * (PAGE + 24)], first
        if cut < whole.count:
            rest = body[cut * (PAGE + 24) :]
            yield rest, scan(rest, whole.position(START, cut) if cut else START)


def squashed(bodies, split=1000, **limits):
    chunks = partial(chunks_of, bodies, split)
    return b"".join(newest_images(chunks, page_size=PAGE, salts=(7, 8), **limits))


@given(st.lists(TRANSACTIONS, min_size=1, max_size=4), st.integers(0, 12), st.integers(0, 9))
def test_one_transaction_leads_where_all_of_them_lead(runs, base_pages, split):
    """On any base, read by another reader of the log, however the frames come in pieces; each
    page has one image, and the last frame alone commits."""
    base = [page(1000 + n) for n in range(base_pages)]
    built = [build(transactions, 1 + 100 * n) for n, transactions in enumerate(runs)]
    plain = [frame for _, frames in built for frame in frames]
    expected = replay(base, plain)
    assume(any(pgno <= len(expected) for pgno, _, _ in built[-1][1][-1:]))
    found = read_wal(squashed([body for body, _ in built], split))
    assert found.committed == len(found.frames)
    assert [bool(commit) for _, commit, _ in found.frames[:-1]] == [False] * (len(found.frames) - 1)
    pgnos = [pgno for pgno, _, _ in found.frames]
    assert len(set(pgnos)) == len(pgnos)
    assert replay(base, [(p, image, c) for p, c, image in found.frames]) == expected


def test_many_pages_of_zeros_are_written_in_pieces():
    """Pages that were cut off and came back without an image are zeros, not the base's content."""
    body, plain = build([([1], 1), ([1, 12], 12)])
    found = read_wal(squashed([body], zeros_bytes=3 * PAGE))
    base = [page(1000 + n) for n in range(12)]
    assert [pgno for pgno, _, _ in found.frames] == [*range(2, 12), 1, 12]
    assert replay(base, [(p, image, c) for p, c, image in found.frames]) == replay(base, plain)


def test_nothing_cannot_be_made_into_something():
    """A mistake of the caller, not an empty object."""
    with pytest.raises(ValueError, match="no image"):
        squashed([])


def test_the_result_is_a_wal_of_its_own():
    """Its salts are those given, its page numbers those that changed."""
    body, _ = build([([3, 1, 2], 3), ([2], 3)])
    whole = squashed([body])
    assert scan(whole[32:], new_header(PAGE, salts=(7, 8)).start()).pages.tolist() == [3, 1, 2]
    assert np.frombuffer(whole[16:24], ">u4").tolist() == [7, 8]


@given(st.lists(TRANSACTIONS, min_size=1, max_size=3), st.integers(0, 12), st.data())
def test_newest_first_equals_oldest_first(segments, base_pages, data):
    """Segments applied from the newest down, the base underneath, each page written at most
    once: the same database as replaying every frame in order."""
    base = [page(1000 + n) for n in range(base_pages)]
    built = [build(transactions, 1 + 100 * n) for n, transactions in enumerate(segments)]
    expected = replay(base, [frame for _, plain in built for frame in plain])
    overlay = Overlay(PAGE, len(expected))
    written = {}
    start = new_header(PAGE, salts=(1, 2)).start()
    for body, _ in reversed(built):
        frames = scan(body, start)
        chosen = overlay.choose(frames, frames.count)
        split = data.draw(st.integers(0, frames.count))
        for first, piece in (
            (0, body[: split * (PAGE + 24)]),
            (split, body[split * (PAGE + 24) :]),
        ):
            for pgnos, images in chosen.images(piece, first):
                _write(written, runs(pgnos, images, PAGE, zeros=True))
    _write(written, overlay.open_runs(1, b"".join(base), zeros=False))
    found = [written.get(n, bytes(PAGE)) for n in range(1, len(expected) + 1)]
    assert found == expected


def _write(written, pieces):
    for offset, view in pieces:
        for at in range(0, len(view), PAGE):
            pgno = (offset + at) // PAGE + 1
            assert pgno not in written, "a page written twice"
            written[pgno] = bytes(view[at : at + PAGE])


def test_the_lock_page_is_never_open():
    """Page 0x40000000 / size + 1 is never written, for any image."""
    lock = lock_page(65536)
    overlay = Overlay(65536, lock + 1)
    image = b"x" * (3 * 65536)
    found = [
        (offset // 65536 + 1, len(view) // 65536)
        for offset, view in overlay.open_runs(lock - 1, image, zeros=True)
    ]
    assert found == [(lock - 1, 1), (lock + 1, 1)]


def test_held_pages_are_those_still_open():
    """A page that a newer image settled may differ from its old hash, an open one not."""
    image = page(1) + page(2) + page(3)
    hashes = page_hashes(PAGE, 1, image)
    overlay = Overlay(PAGE, 3)
    body, _ = build([([2], 3)])
    frames = scan(body, new_header(PAGE, salts=(1, 2)).start())
    overlay.choose(frames, 1)
    assert overlay.holds(1, page(1) + page(9) + page(3), hashes)
    assert not overlay.holds(1, page(1) + page(2) + page(9), hashes)
    assert not overlay.holds(1, image, hashes[:2])
