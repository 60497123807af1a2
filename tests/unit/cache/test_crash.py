"""The cache after a failure at every single call: a step happened or it did not, never half.

One scenario touches every transition. It is run once to learn what the cache looks like after
each step, then again with a failure at call 1, 2, 3 … of the file system or the ledger.
"""

import dataclasses
import errno
import os

import pytest

from replicator.cache.cache import Cache
from replicator.cache.records import Fact, Status
from replicator.errors import DiskFull, LocalIOError
from tests.helpers.cache import add, hashes_of, record
from tests.helpers.files import (
    CountingFiles,
    Crash,
    CrashingFiles,
    FailingFiles,
    KillingFiles,
    PowerCutFiles,
)

BASE = hashes_of(3)


def joined(cache):
    waiting = cache.pending()
    return add(cache, waiting[0].first_txid, waiting[-1].last_txid, replaces=waiting)


def save_base(cache):
    cache.save_hashes(0, BASE)


def save_hashes(cache):
    cache.save_hashes(4, hashes_of(4))


def trim(cache):
    cache.trim(0)


# After an error these may have taken effect all the same: a trim goes in batches, and the array
# of page hashes, which proves itself when it is loaded, may be in place before its name is safe.
MAY_BE_DONE = (save_base, save_hashes, trim)

# Each step is one transition that must be durable when it returns, and whole or absent when it
# does not.
STEPS = (
    save_base,
    lambda cache: add(cache, 1, change=b"one"),
    lambda cache: add(cache, 2),
    lambda cache: cache.uploading(1),
    lambda cache: cache.progress(1, "id", 7),
    lambda cache: cache.uploaded(1, 99),
    lambda cache: cache.put(Fact.DATABASE, "1:2"),
    lambda cache: cache.uploading(2),
    lambda cache: cache.failed(2, "503", 5),
    lambda cache: cache.uploading(2),
    lambda cache: cache.uploaded(2, 100),
    lambda cache: add(cache, 3),
    lambda cache: add(cache, 4),
    joined,
    lambda cache: add(cache, 5, change=b"five"),
    lambda cache: cache.drop_pending(5),
    trim,
    save_hashes,
    lambda cache: cache.adopt(record(9)),
)


def view(cache):
    """All that a cache remembers; attempts of a dead process wait again."""
    records = [settled(r) for r in cache.records()]
    base = cache._base.load()
    for waiting in cache.pending():
        cache.read(waiting)
    return (
        records,
        cache.get(Fact.DATABASE),
        base and (base[0], base[1].state),
        cache._ledger.changes(base[0] if base else 0, 99),
    )


def settled(record):
    """The record after its process ended: an attempt waits again."""
    if record.delivery.status is not Status.UPLOADING:
        return record
    delivery = dataclasses.replace(record.delivery, status=Status.PENDING)
    return dataclasses.replace(record, delivery=delivery)


def perform(directory, files, done):
    """The scenario; ``done`` grows by one with each step that returned."""
    with Cache.open(directory, files) as cache:
        done.append("open")
        for step in STEPS:
            step(cache)
            done.append(step)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Views after 0, 1, 2 … steps (of which opening is one), and the number of calls."""
    files = CountingFiles()
    directory = tmp_path_factory.mktemp("reference") / "cache"
    with Cache.open(directory) as cache:
        views = [view(cache)] * 2
        for step in STEPS:
            step(cache)
            views.append(view(cache))
    perform(tmp_path_factory.mktemp("counting") / "cache", files, [])
    return views, len(files.log)


def assert_right_class(error, code):
    assert isinstance(error, DiskFull) == (code == errno.ENOSPC)


def check(directory, done, views, where):
    with Cache.open(directory) as cache:
        assert view(cache) in views[done : done + 2], where
        kept = {r.file_name for r in cache.records() if r.stored}
        assert set(os.listdir(directory / "segments")) == kept, where
        assert all("had no record" in message for message in cache.recovered), where


@pytest.mark.parametrize("kind", [CrashingFiles, PowerCutFiles])
def test_a_crash_at_any_call_leaves_a_step_done_or_undone(tmp_path, reference, kind):
    """The process ends, or the power fails and takes with it all that was not synced."""
    views, calls = reference
    for at in range(1, calls + 1):
        directory, done = tmp_path / str(at) / "cache", []
        files = kind(at)
        with pytest.raises(Crash):
            perform(directory, files, done)
        if kind is PowerCutFiles:
            files.cut()
        check(directory, len(done), views, f"call {at}: {files.log[at - 1]}")


class Told:
    """Reports to the parent process that a step is done."""

    def __init__(self, writer):
        self.writer = writer

    def append(self, _):
        os.write(self.writer, b".")


def test_sigkill_at_any_call_leaves_a_step_done_or_undone(tmp_path, reference):
    """The same with a real process and a real kill; it reports its steps through a pipe."""
    views, calls = reference
    for at in range(1, calls + 1, 3):
        directory = tmp_path / str(at) / "cache"
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            perform(directory, KillingFiles(at), Told(writer))
            os._exit(0)
        os.close(writer)
        _, status = os.waitpid(child, 0)
        done = len(os.read(reader, 1000))
        os.close(reader)
        assert os.WIFSIGNALED(status)
        check(directory, done, views, f"call {at}")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_an_error_at_any_call_leaves_a_step_done_or_undone(tmp_path, reference, code):
    """The disk refuses once: our error, the cache as it was or as it was to be, usable, and
    what opens it next agrees."""
    views, calls = reference
    for at in range(1, calls + 1):
        directory = tmp_path / str(at) / "cache"
        files = FailingFiles(at, code)
        try:
            cache = Cache.open(directory, files)
        except LocalIOError as error:
            assert_right_class(error, code)
            check(directory, 0, views, f"call {at}")
            continue
        where, number = "opening", 0
        with cache:
            for number, step in enumerate(STEPS, 1):
                failed = len(files.log) >= at
                try:
                    step(cache)
                except LocalIOError as error:
                    assert_right_class(error, code)
                    where = f"call {at}: {files.log[at - 1]}"
                    assert view(cache) in views[number : number + 2], where
                    assert step in MAY_BE_DONE or view(cache) == views[number], where
                if len(files.log) >= at and not failed:
                    break
        with Cache.open(directory) as cache:
            assert view(cache) in views[number : number + 2], where
