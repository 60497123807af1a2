"""cache/page_hashes.py: page hashes across restarts, exact since the base, or none."""
# ruff: noqa: PLR1704 - a cache that is opened again keeps its name

import errno
import random

import numpy as np
import pytest

from replicator.cache.cache import Cache
from replicator.cache.limits import CacheLimits
from replicator.cache.page_hashes import HashBase
from replicator.errors import LocalIOError
from replicator.format.page_hashes import HashChange, replay
from replicator.format.wal import HEADER_SIZE, FrameBuilder, parse_header, scan
from tests.helpers.cache import PAGE_SIZE, add, hashes_of, page, record
from tests.helpers.disk_faults import name_of
from tests.helpers.files import FailingFiles, StrikingFiles


def commit(hashes, numbers, *, pages, version):
    """Change some pages as one transaction; the change as bytes."""
    builder = FrameBuilder(PAGE_SIZE, salts=(1, 2))
    images = b"".join(page(number * 7 + version) for number in numbers)
    data = builder.feed(np.array(numbers, np.uint32), images, commit=pages)
    frames = scan(data, parse_header(builder.header[:HEADER_SIZE]).start())
    assert frames.committed == len(numbers)
    change = HashChange(hashes)
    change.add(frames, frames.count, data)
    change.apply()
    return change.to_bytes()


def capture(cache, hashes, txid, numbers, pages):
    change = commit(hashes, numbers, pages=pages, version=txid)
    return add(cache, txid, values={"state": hashes.state}, change=change)


def random_log(cache, hashes, count, seed=1):
    """Transactions that change, grow and shrink; the state after each."""
    chance = random.Random(seed)
    states = {}
    for txid in range(1, count + 1):
        pages = max(1, hashes.pages + chance.randint(-3, 5))
        numbers = sorted(chance.sample(range(1, pages + 1), chance.randint(1, pages)))
        capture(cache, hashes, txid, numbers, pages)
        states[txid] = hashes.to_bytes()
    return states


def test_every_state_since_the_base_can_be_loaded(cache):
    """The newest for a restart, an older one after waiting segments were dropped."""
    hashes = hashes_of(20)
    cache.save_hashes(0, hashes)
    states = random_log(cache, hashes, 30)
    cache.close()
    with Cache.open(cache.directory) as cache:
        for txid, content in states.items():
            assert cache.load_hashes(txid).to_bytes() == content
        assert cache.load_hashes(31) is None
        cache.drop_pending(11)
        assert cache.load_hashes(11) is None
        hashes = cache.load_hashes(10)
        capture(cache, hashes, 11, [1, 2], 2)
        assert cache.load_hashes(11).to_bytes() == hashes.to_bytes()
        assert cache.load_hashes(5).to_bytes() == states[5]


def test_a_new_base_forgets_the_changes_before_it(cache):
    """Earlier states are gone, later ones follow from the new base."""
    hashes = hashes_of(5)
    cache.save_hashes(0, hashes)
    states = random_log(cache, hashes, 6)
    cache.save_hashes(4, cache.load_hashes(4))
    assert cache.load_hashes(3) is None
    assert cache.load_hashes(4).to_bytes() == states[4]
    assert cache.load_hashes(6).to_bytes() == states[6]
    assert len(cache._ledger.changes(0, 99)) == 2


def test_a_txid_inside_a_segment_has_no_state(cache):
    """States are known at the ends of segments only."""
    hashes = hashes_of(5)
    cache.save_hashes(0, hashes)
    add(cache, 1, 4, values={"state": hashes.state})
    assert cache.load_hashes(4).state == hashes.state
    assert cache.load_hashes(2) is None
    assert cache.load_hashes(0) is None


def test_a_missing_change_is_noticed(cache):
    """A segment that was captured without its change ends the trust, until the next base."""
    hashes = hashes_of(5)
    cache.save_hashes(0, hashes)
    capture(cache, hashes, 1, [1], 5)
    commit(hashes, [2], pages=5, version=2)
    add(cache, 2, values={"state": hashes.state})
    capture(cache, hashes, 3, [3], 5)
    assert cache.load_hashes(1) is not None
    assert cache.load_hashes(2) is cache.load_hashes(3) is None
    cache.save_hashes(3, hashes)
    assert cache.load_hashes(3).to_bytes() == hashes.to_bytes()


def test_changes_that_do_not_fit_are_none(cache):
    """Whatever is in the ledger under a good checksum, loading returns."""
    hashes = hashes_of(5)
    cache.save_hashes(0, hashes)
    change = commit(hashes, [1, 2], pages=5, version=1)
    bad = [
        b"x",
        change[:-1],
        change + b"x",
        b"\xff" * len(change),
        change[:12] + b"\0" * 4 + change[16:],
    ]
    for txid, data in enumerate(bad, 1):
        add(cache, txid, values={"state": hashes.state}, change=data)
        assert cache.load_hashes(txid) is None
        with pytest.raises(ValueError, match=r"change|page outside"):
            replay(hashes_of(5), data)
        cache.save_hashes(txid, hashes_of(5))


def test_any_flipped_bit_of_the_base_is_noticed(cache):
    """Stamp and array, every byte of the file, and every length."""
    hashes = hashes_of(3)
    cache.save_hashes(0, hashes)
    capture(cache, hashes, 1, [1], 3)
    path = cache.directory / "pages.xxh"
    good = path.read_bytes()
    assert cache.load_hashes(1) is not None
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :])
        assert cache.load_hashes(1) is None
        path.write_bytes(good[:at])
        assert cache.load_hashes(1) is None
    path.write_bytes(good + b"\0" * 8)
    assert cache.load_hashes(1) is None
    path.unlink()
    assert cache.load_hashes(1) is None
    path.mkdir()
    assert cache.load_hashes(1) is None
    path.rmdir()
    path.write_bytes(good)
    assert cache.load_hashes(1) is not None


def test_a_base_of_another_history_is_not_trusted(cache):
    """Same txid, other pages: the record of the segment decides."""
    add(cache, 1, values={"state": hashes_of(4).state})
    cache.save_hashes(1, hashes_of(5))
    assert cache.load_hashes(1) is None
    cache.save_hashes(1, hashes_of(4))
    assert cache.load_hashes(1).state == hashes_of(4).state


def test_an_adopted_head_finds_the_hashes_that_were_saved_for_it(cache):
    """In either order: a restore knows both at the same time."""
    hashes = hashes_of(4)
    cache.save_hashes(7, hashes)
    cache.adopt(record(7, state=hashes.state))
    assert cache.load_hashes(7).to_bytes() == hashes.to_bytes()


def test_a_base_is_due_when_the_changes_outgrew_it(tmp_path):
    """Rewriting the array costs no more than the changes did, so it is never rewritten often."""
    with Cache.open(tmp_path / "cache", limits=CacheLimits(least_changes=100)) as cache:
        assert not cache.hashes_due()
        add(cache, 1, change=b"x" * 101)
        assert cache.hashes_due()
        cache.save_hashes(1, hashes_of(50))
        assert not cache.hashes_due()
        add(cache, 2, change=b"x" * 401)
        assert not cache.hashes_due()
        add(cache, 3, change=b"x" * 401)
        assert cache.hashes_due()


def test_a_save_that_fails_keeps_the_old_base(tmp_path, cache):
    """No space for the new array: the old one and its changes still lead to the same state."""
    hashes = hashes_of(4)
    cache.save_hashes(0, hashes)
    capture(cache, hashes, 1, [1], 4)
    cache.close()
    files = FailingFiles(0)
    with Cache.open(cache.directory, files) as cache:
        files.at = len(files.log) + 3
        with pytest.raises(LocalIOError):
            cache.save_hashes(1, hashes)
        assert cache.load_hashes(1).to_bytes() == hashes.to_bytes()


def test_hashes_that_cannot_be_read_are_logged(tmp_path, caplog):
    """Their loss costs a scan or a snapshot; the log has the reason."""
    files = StrikingFiles(name_of)
    base = HashBase(tmp_path / "pages.xxh", files, least_changes=0)
    assert base.load() is None
    assert caplog.text == ""
    (tmp_path / "pages.xxh").write_bytes(b"hashes")
    files.strike(("pread", "hashes"), 1, errno.EIO, lasting=False)
    assert base.load() is None
    assert "input/output error; the hashes of all pages are lost" in caplog.text
