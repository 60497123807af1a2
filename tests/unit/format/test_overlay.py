"""Which images count, checked against a database that is replayed forwards."""

from hypothesis import given
from hypothesis import strategies as st

from replicator.format.database import lock_page
from replicator.format.overlay import Overlay, join, page_hashes, runs, tail
from replicator.format.wal import new_header, scan
from tests.helpers.sample_wals import PAGE, TRANSACTIONS, build, page, replay


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
    """Page 0x40000000 / size + 1 is left alone whatever an image says."""
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


@given(TRANSACTIONS, st.data())
def test_scans_join_and_split(transactions, data):
    """Scanning in pieces and joining equals scanning at once; a tail is what follows."""
    body, plain = build(transactions)
    start = new_header(PAGE, salts=(1, 2)).start()
    whole = scan(body, start)
    at = data.draw(st.integers(0, whole.count))
    head = scan(body[: at * (PAGE + 24)], start)
    rest = scan(body[at * (PAGE + 24) :], head.position(start, at))
    joined, after = join([head, rest]), tail(whole, at)
    assert (
        (joined.count, joined.committed)
        == (whole.count, whole.committed)
        == (len(plain), len(plain))
    )
    assert joined.pages.tolist() == whole.pages.tolist()
    assert joined.commits.tolist() == whole.commits.tolist()
    assert (after.count, after.pages.tolist()) == (rest.count, rest.pages.tolist())
    assert after.committed == rest.committed
