"""engine/health.py: the status as a fold over the health of every stage."""

from dataclasses import replace

import pytest

from replicator.archive.records import PROVEN, ProofRecord
from replicator.engine.health import MIRRORED, CacheFigures, Observations, export, fold
from replicator.engine.session import SessionFigures
from replicator.errors import LocalIOError, StoreUnavailable
from replicator.metrics import Metrics
from replicator.model import Failure, Health, unstarted
from replicator.snapshot.schedule import SnapshotFacts
from replicator.upload.watermark import ENDED, FAILING, UploadState
from tests.helpers.cache import record

NOW = 1_000_000
WORKS = Health("works")
AWAY = StoreUnavailable("away")
WAITS = [record(n, first_commit_ms=NOW - 1000 * (10 - n), raw_bytes=100, size=40) for n in (8, 9)]
FOLLOWED = SessionFigures(
    noticed_ms=None,
    uncaptured=0,
    wal_frames=12,
    poll_interval=1.0,
    last_snapshot=SnapshotFacts(txid=5, at_ms=77, size=1000),
    identity=(1, 2),
)


def seen(**changes):
    """A replicator that follows its database; everything is durable."""
    values = {
        "database": "/app.db",
        "url": "s3://b/app.db",
        "running": True,
        "now_ms": NOW,
        "window": 10.0,
        "unseen": 0.5,
        "capture": Health("following"),
        "upload": UploadState(durable_txid=9),
        "store": WORKS,
        "cache": WORKS,
        "monitor": WORKS,
        "retention": WORKS,
        "newest": None,
        "contents": CacheFigures((), record(9), 500),
        "session": FOLLOWED,
        "source": (1, 2),
        "metrics": Metrics().snapshot(),
        "proven": None,
        "unsaved_bytes": 0,
    }
    return Observations(**values | changes)


def test_a_replicator_that_keeps_up_is_healthy():
    """Positions of the head and of the store agree; nothing lags, nothing failed."""
    status = fold(seen())
    assert (status.running, status.healthy, status.state) == (True, True, "following")
    assert (status.txid, status.durable_txid, status.generation) == (9, 9, "0190-gen")
    assert (status.lag_seconds, status.lag_bytes, status.pending_segments) == (0, 0, 0)
    assert (status.last_error, status.last_error_at, status.retention_error) == (None, None, None)
    assert (status.wal_frame_count, status.last_snapshot, status.last_snapshot_txid) == (12, 77, 5)
    assert (status.last_verified_txid, status.last_wal_sync) == (None, None)


def test_waiting_segments_and_uncaptured_commits_are_the_lag():
    """As old as the oldest of them, as long as all of them."""
    contents = CacheFigures(WAITS, WAITS[-1], 80)
    session = replace(FOLLOWED, noticed_ms=NOW - 500, uncaptured=30)
    status = fold(seen(contents=contents, session=session, upload=UploadState(durable_txid=7)))
    assert (status.lag_seconds, status.lag_bytes) == (2.0, 230)
    assert (status.pending_segments, status.pending_bytes) == (2, 80)
    assert status.healthy
    session = replace(session, noticed_ms=NOW - 3000)
    assert fold(seen(contents=contents, session=session)).lag_seconds == 3.0


@pytest.mark.parametrize(("age_ms", "healthy"), [(9_999, True), (10_000, False)])
def test_a_commit_may_wait_for_the_window(age_ms, healthy):
    """And no millisecond longer."""
    session = replace(FOLLOWED, noticed_ms=NOW - age_ms)
    assert fold(seen(session=session)).healthy == healthy


FAILED = Health("failing", AWAY, NOW - 5)


@pytest.mark.parametrize(
    "change",
    [
        {"upload": UploadState(durable_txid=9, health=Health(FAILING, AWAY))},
        {"upload": UploadState(durable_txid=9, health=Health(ENDED, AWAY))},
        {"capture": Health("following", AWAY)},
        {"store": FAILED},
        {"cache": FAILED},
        {"monitor": FAILED},
    ],
    ids=["upload", "ended", "capture", "store", "cache", "monitor"],
)
def test_a_stage_that_fails_makes_the_whole_unhealthy(change):
    """Whichever it is; whether it is over is for the stage to say."""
    assert seen(**change).error is AWAY
    assert not fold(seen(**change)).healthy


def test_retention_that_waits_is_shown_and_harms_nothing():
    """Merges and deletions may be late for ever."""
    status = fold(seen(retention=Health("waiting", AWAY)))
    assert (status.healthy, status.retention_error) == (True, "away")
    assert fold(seen(retention=None)).retention_error is None


@pytest.mark.parametrize(
    ("state", "session", "head", "healthy"),
    [
        ("following", FOLLOWED, record(9), True),
        ("following", None, record(9), False),
        ("starting", FOLLOWED, record(9), False),
        ("stalled", FOLLOWED, record(9), False),
        ("waiting", None, None, False),  # there has never been a database: a wrong path?
        ("waiting", None, record(9), False),  # it is gone
        ("failed", FOLLOWED, record(9), False),
    ],
)
def test_only_who_would_notice_a_commit_is_healthy(state, session, head, healthy):
    """A replicator that does not look at the WAL knows nothing of it."""
    observed = seen(capture=Health(state), session=session, contents=CacheFigures((), head, 0))
    assert fold(observed).healthy == healthy


@pytest.mark.parametrize("source", [None, (1, 3), (2, 2)])
def test_another_file_or_none_at_the_path_is_no_health(source):
    """Even before the capture thread notices it."""
    assert not fold(seen(source=source)).healthy


def test_a_missing_database_is_the_failure_while_it_is_waited_for():
    """With the time since when; a database that came leaves no trace of it."""
    waits = Health("waiting", AWAY, NOW - 9)
    status = fold(seen(capture=waits, newest=Failure(LocalIOError("old"), NOW - 99)))
    assert (status.last_error, status.last_error_at) == ("away", NOW - 9)


@pytest.mark.parametrize(("unseen", "healthy"), [(10.9, True), (11.1, False)])
def test_a_wal_that_was_not_looked_at_for_long_is_no_health(unseen, healthy):
    """The window, and one interval between two looks."""
    assert fold(seen(unseen=unseen)).healthy == healthy


@pytest.mark.parametrize("state", ["starting", "stalled"])
def test_what_was_not_looked_at_lags_as_long(state):
    """Commits may have come at any time since."""
    assert fold(seen(capture=Health(state), unseen=4.2)).lag_seconds == 4.2


def test_a_database_of_which_nothing_is_stored_lags_as_a_whole():
    """Until its first snapshot."""
    contents = CacheFigures((), None, 0)
    assert fold(seen(contents=contents, unsaved_bytes=4096)).lag_bytes == 4096
    assert fold(seen(unsaved_bytes=4096)).lag_bytes == 0


def test_the_newest_failure_stays_and_a_refusing_cache_fails_now():
    """A failure that is over is shown with its time."""
    newest = Failure(AWAY, NOW - 70)
    status = fold(seen(newest=newest))
    assert (status.healthy, status.last_error, status.last_error_at) == (True, "away", NOW - 70)
    refusing = Health("refusing", LocalIOError("no disk"))
    status = fold(seen(newest=newest, cache=refusing))
    assert (status.last_error, status.last_error_at) == ("no disk", NOW)


def test_one_that_stopped_or_failed_says_so():
    """The rest stays as it was last seen."""
    status = fold(seen(running=False))
    assert (status.running, status.healthy, status.state, status.txid) == (
        False,
        False,
        "stopped",
        9,
    )
    status = fold(seen(capture=Health("failed", AWAY)))
    assert (status.running, status.healthy, status.state) == (False, False, "failed")


def test_the_newest_proof_is_shown():
    """Its transaction and its time."""
    status = fold(seen(proven=ProofRecord("k", 55, PROVEN, 6)))
    assert (status.last_verified_txid, status.last_verified_ms) == (6, 55)


def test_metrics_mirror_the_status():
    """Each of them by its name."""
    metrics, status = Metrics(), fold(seen())
    export(status, 500, metrics)
    figures = metrics.snapshot()
    assert {name: figures[name] for name in MIRRORED} == {
        name: getattr(status, name) for name in MIRRORED
    }
    assert (figures["wal_frames"], figures["cache_bytes"]) == (12, 500)


def test_before_the_first_start_nothing_is_known():
    """A status all the same."""
    status = unstarted("/app.db", "s3://b/app.db")
    assert (status.running, status.healthy, status.state, status.txid) == (
        False,
        False,
        "stopped",
        0,
    )
