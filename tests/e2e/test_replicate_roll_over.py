"""Roll-overs of the WAL under writes: it stays bounded, readers are safe, and no page is lost."""

import contextlib
import threading

import pytest

from tests.helpers.replication import LONG, wait_for

MIB = 1 << 20


SHORT_WAL = {"capture": {"roll_over_frames": 20}, "session": {"roll_over_pause": 0.0}}


class HighWater:
    """Polls the size of the WAL and keeps the largest."""

    def __init__(self, path):
        self._path, self.bytes = path, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self):
        while not self._stop.wait(0.002):
            with contextlib.suppress(FileNotFoundError):
                self.bytes = max(self.bytes, self._path.stat().st_size)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._stop.set()
        self._thread.join()


@pytest.mark.no_cover  # a hundred times the lines of one roll-over
@pytest.mark.parametrize(
    "options",
    [
        {"writers": 1, "rate": 2000},
        {"writers": 3, "rate": 600},
        {"writers": 2, "rate": 1000, "truncate_every": 30},
        {"writers": 1, "rate": 2000, "autocheckpoint": 0},
        {"writers": 2, "rate": 1000, "reopen_every": 9, "autocheckpoint": 15},
        {"writers": 1, "rate": 1000, "vacuum_every": 50, "page_size": 512},
    ],
    ids=str,
)
def test_a_hundred_roll_overs(deployment, options):
    """Over a hundred roll-overs each page and commit is captured. Writers that seldom pause have
    to wait early, so that a hundred take seconds."""
    deployment.create(**options)
    early = {"escalate_factor": 4, "escalate_tries": 1, "escalate_rest": 0.0}
    limits = SHORT_WAL | {"capture": SHORT_WAL["capture"] | early}
    with deployment.replicating(limits=limits) as replicator:
        while replicator.status().roll_overs < 100:
            writers = deployment.start_all(commits=400, **options)
            while any(writer.running for writer in writers):
                replicator.flush(LONG)
            for writer in writers:
                writer.finish()
        replicator.flush(LONG)
    deployment.check_exact()


@pytest.mark.parametrize(("slowed", "stopped"), [(32, 96), (32, 32)])
def test_the_wal_stays_bounded_under_a_writer_that_never_pauses(deployment, slowed, stopped):
    """The WAL stays below 384 MiB while much more is written through it. Without roll-overs it
    would grow to the size of all captured data, because a read mark is always held; and a writer
    that is faster than the capture would double it with each one."""
    limits = {"session": {"overrun_bytes": slowed * MIB, "stop_bytes": stopped * MIB}}
    deployment.create()
    with deployment.replicating(limits=limits) as replicator, HighWater(deployment.wal) as high:
        deployment.write(commits=30_000)
        replicator.flush(LONG)
        captured = replicator.metrics.get("captured_bytes")
        status = replicator.status()
    print(  # noqa: T201
        f"log at most {high.bytes / MIB:.0f} MiB of {captured / MIB:.0f} MiB written, "
        f"{status.roll_overs} roll-overs, {status.write_lock_holds} holds, the longest "
        f"{status.longest_write_lock_ms:.0f} ms"
    )
    assert captured > 1.5 * high.bytes
    assert high.bytes < 384 * MIB
    deployment.check_exact()


def test_a_long_reader_is_not_broken(deployment):
    """A long reader keeps its view to its end; the WAL grows as it would without a replicator, and
    is rolled over once the reader has ended."""
    deployment.create()
    with deployment.replicating(limits=SHORT_WAL) as replicator:
        reader, seen = deployment.reader()
        replicator.flush(LONG)
        before = replicator.status()
        deployment.write(commits=500)
        replicator.flush(LONG)
        held = replicator.status()
        assert held.roll_overs <= before.roll_overs + 1  # one may have been under way
        assert held.wal_frame_count > 10 * 20
        assert replicator.status().durable_txid >= deployment.total()  # all of it is durable
        reader.resume()
        assert reader.read_line() == seen
        reader.finish()

        def rolled_over():
            deployment.write(commits=1)
            replicator.flush(LONG)
            return replicator.status().roll_overs > held.roll_overs

        wait_for(rolled_over)
        deployment.write(commits=1)
        replicator.flush(LONG)
        assert replicator.status().wal_frame_count < held.wal_frame_count
    deployment.check_exact()


def test_a_transaction_beyond_the_page_cache(deployment):
    """A transaction of 64 MiB, which spills frames into the WAL before its commit, rewrites them
    and rolls some back, is replicated as one transaction."""
    deployment.create()
    with deployment.replicating() as replicator:
        deployment.write(commits=20)
        before = replicator.flush(LONG).txid
        deployment.write(large=64 * MIB)
        position = replicator.flush(LONG)
        assert position.txid == before + 1
        deployment.write(commits=20)
        replicator.flush(LONG)
    copy, _ = deployment.restore(txid=before)
    deployment.check_commits(copy, at_least={1: 21})
    copy, _ = deployment.restore(txid=position.txid)
    deployment.check_commits(copy, at_least={1: 22})
    deployment.check_exact()


def test_a_backlog_cut_in_pieces(deployment):
    """Captures that always stop before the end of the WAL, under checkpoints of the application,
    lose no page between two WALs."""
    limits = {"capture": {"chunk_bytes": 128 << 10, "hold_bytes": 0}}
    deployment.create()
    with deployment.replicating(segment_max_bytes=128 << 10, limits=limits) as replicator:
        for _ in range(15):
            deployment.write(writers=2, commits=60, truncate_every=20, autocheckpoint=50)
        replicator.flush(LONG)
        assert replicator.status().txid >= deployment.total()  # without a catch-up
        assert replicator.metrics.get("catch_ups") == 0
    deployment.check_exact()


def test_large_transactions_among_small_ones(deployment):
    """Spilling transactions of two writers, between the commits of a third."""
    deployment.create()
    with deployment.replicating(limits=SHORT_WAL) as replicator:
        small = deployment.start(1, commits=400, rate=400)
        for writer in (2, 3, 2, 3):
            deployment.start(writer, large=6 * MIB).finish()
            replicator.flush(LONG)
        small.finish()
        replicator.flush(LONG)
    deployment.check_exact()
