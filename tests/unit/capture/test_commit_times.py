"""Commit times: of the first look that saw the transaction's own last frame."""

import time
from dataclasses import replace

import pytest

from replicator.capture.commit_times import WalObservations, commit_times
from replicator.capture.limits import CaptureLimits
from replicator.capture.reader import WalReader, no_wal
from replicator.format.segment import decode_segment
from replicator.sqlite.wal_file import WalFile
from replicator.store.memory import MemoryStore
from replicator.system.paths import wal_path
from tests.helpers.replication import replicating, wait_for

TICK_MS = 10  # a file's modification time may be that old: the kernel takes it from its last tick


def captured(app):
    """The one batch of the whole log."""
    reader = WalReader(WalFile(wal_path(app.path)), no_wal(4096), CaptureLimits())
    (batch,) = reader.batches(reader.find(1 << 30))
    return batch


def end_of(batch, frame):
    return batch.frames.position(batch.base, frame)


def test_a_sighting_of_captured_frames_is_proved(app):
    """Those within the batch, and no others."""
    app.insert(50)
    batch = captured(app)
    seen = WalObservations(CaptureLimits())
    seen.record(end_of(batch, 2), 100)
    seen.record(end_of(batch, batch.count), 200)
    assert seen.matching(batch) == [(2, 100), (batch.count, 200)]
    shorter = replace(batch, count=batch.count - 1)
    assert seen.matching(shorter) == [(2, 100)]


def test_frames_that_were_rolled_back_prove_nothing(app):
    """Another transaction has their place in the log now."""
    app.insert(5)
    batch = captured(app)
    seen = WalObservations(CaptureLimits())
    seen.record(replace(end_of(batch, 2), checksum=(1, 2)), 100)
    seen.record(replace(end_of(batch, 3), salt1=0), 150)
    assert seen.matching(batch) == []


def test_a_log_that_got_shorter_takes_later_sightings_with_it(app):
    """What was written again later is not as old as what it replaced."""
    app.insert(5)
    batch = captured(app)
    seen = WalObservations(CaptureLimits())
    seen.record(end_of(batch, 3), 100)
    seen.record(end_of(batch, 2), 150)
    seen.record(end_of(batch, 3), 200)
    assert seen.matching(batch) == [(2, 150), (3, 200)]


def test_the_first_look_counts(app):
    """Seeing the same end again says nothing new."""
    app.insert(5)
    batch = captured(app)
    seen = WalObservations(CaptureLimits())
    seen.record(end_of(batch, 3), 100)
    seen.record(end_of(batch, 3), 200)
    assert seen.matching(batch) == [(3, 100)]


def test_what_was_captured_is_forgotten(app):
    """Memory holds what lies ahead only."""
    app.insert(5)
    batch = captured(app)
    seen = WalObservations(CaptureLimits())
    seen.record(end_of(batch, 1), 100)
    seen.record(end_of(batch, 3), 200)
    seen.captured(end_of(batch, 2))
    assert seen.matching(batch) == [(3, 200)]
    seen.captured(replace(end_of(batch, 1), salt1=0))
    assert seen.matching(batch) == []


def test_an_endless_wait_keeps_a_bounded_number(app):
    """Every other sighting goes, never the newest."""
    app.insert(200)
    batch = captured(app)
    seen = WalObservations(CaptureLimits(observations=8))
    for frame in range(1, batch.count + 1):
        seen.record(end_of(batch, frame), frame)
    proved = seen.matching(batch)
    assert 4 <= len(proved) <= 8
    assert proved[-1] == (batch.count, batch.count)
    assert proved == sorted(proved)


@pytest.mark.parametrize(
    ("frames", "seen", "least", "now", "times"),
    [
        ([2, 4], [(2, 100), (4, 200)], 0, 900, (100, 200)),
        ([2, 4], [(3, 100)], 0, 900, (100, 900)),
        ([2, 4], [(4, 150)], 0, 900, (150, 150)),
        ([2, 4], [], 0, 900, (900, 900)),
        ([2, 4], [(2, 100), (4, 50)], 0, 900, (100, 100)),
        ([2], [(2, 100)], 500, 900, (500,)),
        ([2], [(2, 1000)], 0, 900, (900,)),
        ([2], [], 500, 300, (500,)),
        ([], [(1, 1)], 0, 1, ()),
    ],
    ids=[
        "each its own",
        "one behind",
        "both at once",
        "none",
        "clock set back",
        "not before",
        "not in the future",
        "clock far back",
        "nothing",
    ],
)
def test_commit_times(frames, seen, least, now, times):
    """Of the first sighting at or behind a commit; never going back."""
    assert commit_times(frames, seen, least=least, now=now) == times


def now_ms():
    return time.time_ns() // 1_000_000


def test_commits_of_one_segment_keep_the_times_at_which_they_were_seen(app):
    """Cut together, long after: each has the time at which it was written to the log."""
    store, spans = MemoryStore(), []
    with replicating(app.path, store, sync_interval=3600.0, upload_burst=1) as replicator:
        app.insert()
        replicator.flush(60)
        for _ in range(3):
            before, begun = replicator.status().lag_bytes, now_ms()
            app.insert()
            wait_for(lambda before=before: replicator.status().lag_bytes > before)
            spans.append((begun, now_ms()))
            wait_for(lambda: now_ms() > spans[-1][1] + 2 * TICK_MS)
        txid = replicator.flush(60).txid
    newest = max(info.key for info in store.list("app.db/wal/"))
    summary, _ = decode_segment(store.get(newest), newest)
    assert summary.trailer.last_txid == txid
    times = summary.trailer.commit_times_ms
    assert len(times) == 3
    for (begun, ended), at_ms in zip(spans, times, strict=True):
        assert begun - TICK_MS <= at_ms <= ended
