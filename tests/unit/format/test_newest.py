"""Several runs of transactions as one transaction: what it leads to, and what it leaves out."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from replicator.format import newest as module
from replicator.format.newest import newest_images
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


def squashed(bodies, split=1000):
    return b"".join(newest_images(lambda: chunks_of(bodies, split), page_size=PAGE, salts=(7, 8)))


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


def test_many_pages_of_zeros_are_written_in_pieces(monkeypatch):
    """Pages that were cut off and came back without an image are zeros, not what the base has."""
    monkeypatch.setattr(module, "ZEROS_BYTES", 3 * PAGE)
    body, plain = build([([1], 1), ([1, 12], 12)])
    found = read_wal(squashed([body]))
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
