"""PageHashes against its definition, over random histories that no SQLite would write."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from replicator.format.database import lock_page
from replicator.format.page_hashes import PageHashes
from replicator.format.wal import FrameBuilder, parse_header, scan
from tests.helpers.page_hashes import apply_frames, set_pages

PAGE_SIZE = 65536
LOCK = lock_page(PAGE_SIZE)
# The lock page is number 16385 at this size. Histories play around it: page n of the model is
# page n + SHIFT of the database, and everything below is zeros.
SHIFT = LOCK - 4


def definition(pages):
    """XOR of the seeded hash of every page but the lock page, from a dictionary of images."""
    total = 0
    for pgno, image in pages.items():
        if pgno != LOCK:
            total ^= xxh3_64_intdigest(image, seed=pgno)
    return total


def image(fill):
    return bytes([fill]) * PAGE_SIZE


def grown_or_cut(pages, size):
    kept = {pgno: data for pgno, data in pages.items() if pgno <= size}
    return {pgno: kept.get(pgno, bytes(PAGE_SIZE)) for pgno in range(SHIFT + 1, size + 1)}


TRANSACTION = st.tuples(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 255)), min_size=1, max_size=5),
    st.integers(1, 9),
)
BASE = PageHashes(PAGE_SIZE)
BASE.resize(SHIFT)


def as_log(transactions):
    builder = FrameBuilder(PAGE_SIZE, salts=(3, 4))
    out = builder.header
    for writes, size in transactions:
        pgnos = np.array([n + SHIFT for n, _ in writes], np.uint32)
        out += builder.feed(pgnos, b"".join(image(fill) for _, fill in writes), commit=size + SHIFT)
    return out


def in_turn(transactions):
    """The model: one transaction after the other, all its writes, then its size."""
    pages = {}
    for writes, size in transactions:
        for n, fill in writes:
            pages[n + SHIFT] = image(fill)
        pages = grown_or_cut(pages, size + SHIFT)
    return pages


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(TRANSACTION, min_size=1, max_size=4), max_size=4))
def test_apply_is_every_transaction_in_turn(runs):
    """However the transactions are grouped into runs, with shrinking, growing again without
    images, pages written beyond the size, and the lock page among them."""
    hashes = BASE.copy()
    for run in runs:
        log = as_log(run)
        body = memoryview(log)[32:]
        frames = scan(body, parse_header(log).start())
        assert frames.committed == frames.count == sum(len(writes) for writes, _ in run)
        apply_frames(hashes, frames, frames.count, body)
    pages = in_turn(itertools.chain.from_iterable(runs))
    assert hashes.checksum == definition(pages) ^ BASE.checksum
    assert hashes.pages == (max(pages) if pages else SHIFT)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.dictionaries(st.integers(1, 9), st.integers(1, 255)), st.integers(1, 9)),
        max_size=4,
    )
)
def test_set_pages_is_a_new_size_and_new_images(steps):
    """Images within the new size take effect; all pages between are zeros."""
    hashes, pages = BASE.copy(), {}
    for writes, size in steps:
        inside = {n + SHIFT: image(fill) for n, fill in writes.items() if n <= size}
        pages = grown_or_cut(pages, size + SHIFT) | inside
        set_pages(
            hashes, np.array(list(inside), np.uint32), b"".join(inside.values()), pages=size + SHIFT
        )
        assert hashes.checksum == definition(pages) ^ BASE.checksum


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=9),
    st.lists(st.integers(0, 2), min_size=1, max_size=9),
)
def test_differing_names_the_pages_that_differ_or_are_new(old, new):
    """And never the lock page, whatever bytes it has."""
    hashes = BASE.copy()
    hashes.extend(SHIFT + 1, b"".join(map(image, old)))
    expected = [
        SHIFT + 1 + n
        for n, fill in enumerate(new)
        if (n >= len(old) or old[n] != fill) and SHIFT + 1 + n != LOCK
    ]
    assert hashes.differing(SHIFT + 1, b"".join(map(image, new))).tolist() == expected
