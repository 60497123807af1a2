"""A capture takes everything that is committed at its call, also behind frames in memory."""

import pytest

from replicator.archive.keys import Keys
from replicator.cache.cache import Cache
from replicator.cache.quota import CacheQuota
from replicator.capture.holds import WalHolds
from replicator.capture.image import Image
from replicator.capture.reader import WalReader
from replicator.capture.segmenter import Author, Segmenter
from replicator.capture.tip import Head, Tip
from replicator.config.settings import SqliteReplicatorConfig
from replicator.engine.limits import Limits
from replicator.engine.resume import hash_image
from replicator.engine.segment_schedule import SegmentSchedule
from replicator.metrics import Metrics
from replicator.sqlite.live import LiveDatabase
from replicator.system import clock
from replicator.system.mailbox import Mailbox


class Following:
    """A database, and the schedule of its segments at its newest transaction."""

    def __init__(self, app, directory):
        config = SqliteReplicatorConfig(db_path=app.path, url=f"file://{directory / 'store'}")
        limits, metrics = Limits.of(config), Metrics()
        self.database = LiveDatabase(app.path)
        self.cache = Cache.open(directory / "cache")
        hold = self.database.hold()
        with Image(self.database, limits.capture) as image:
            hashes, position = hash_image(image, 1 << 20, lambda: False), image.position
        self.reader = WalReader(self.database.wal, position, limits.capture)
        self.holds = WalHolds(self.database, self.reader, hold, metrics, limits.capture)
        segmenter = Segmenter(
            Author(self.cache.writer, "tests", "here"),
            Keys("app.db"),
            Tip(
                hashes,
                Head("01900000-0000-7000-8000-000000000001", 1, hashes.state, 0),
                limits.capture,
            ),
            limits.capture,
            clock_ms=clock.now_ms,
        )
        quota = CacheQuota(
            self.cache, metrics, Mailbox(), max_bytes=1 << 30, level=3, created_by=""
        )
        self.schedule = SegmentSchedule(
            limits, self.reader, self.holds, segmenter, self.cache, quota, metrics
        )

    @property
    def txid(self):
        return self.schedule.segmenter.tip.head.txid

    def close(self):
        self.database.close()
        self.cache.close()


@pytest.fixture
def following(app, tmp_path):
    """The schedule of the application's database."""
    following = Following(app, tmp_path)
    yield following
    following.close()


@pytest.mark.parametrize("resets", [False, True], ids=["one WAL", "WAL reset behind them"])
@pytest.mark.parametrize("capture", ["capture", "rescue"])
def test_frames_in_memory_do_not_end_a_capture(app, following, capture, resets):
    """Frames were read into memory, so that the WAL may reset, and the application commits more:
    the next capture takes these commits too."""
    app.insert(2)
    assert following.reader.stash()
    if resets:
        assert following.holds.settle()
        app.checkpoint()
        assert following.holds.rest()
    app.insert(3)
    if capture == "capture":
        list(following.schedule.capture())
    else:
        list(following.schedule.rescue(lambda: True))
    assert following.txid == 1 + 2
    assert following.schedule.segmenter.tip.hashes.state.pages == len(app.image()) // 4096
