"""What segments leave free on the cache's disk, so that the ledger can go on."""

import pytest

from replicator.cache.limits import DEFAULT_LIMITS
from replicator.engine.in_process import InProcessReplicator
from replicator.system.files import Files
from tests.helpers.replication import LONG, HookedStore, config_for, restored, wait_for

pytestmark = pytest.mark.app(rows=1)

RESERVE = DEFAULT_LIMITS.reserve_bytes


class SmallDisk(Files):
    """One with as much room as a test says."""

    free = 1 << 40

    def disk_free(self, path):
        return self.free


@pytest.fixture
def disk():
    """A disk with little space."""
    return SmallDisk()


@pytest.fixture
def replicator(app, disk):
    """A replicator on the small disk that has uploaded everything."""
    with InProcessReplicator(config_for(app.path), store=HookedStore(), files=disk) as replicator:
        replicator.flush(LONG)
        yield replicator


def test_no_segment_is_kept_that_leaves_less(app, replicator, disk, tmp_path):
    """It is refused, and said so, until there is room again."""
    disk.free = RESERVE - 1
    app.insert()
    wait_for(lambda: "no space left" in str(replicator.status().last_error))
    assert not replicator.status().healthy
    assert not replicator.status().pending_segments
    disk.free = RESERVE
    replicator.flush(LONG)
    assert restored(replicator._store, tmp_path)[1] == app.image()


def test_what_is_in_the_store_gives_way(app, replicator, disk):
    """On a disk too small for the cache as it was set, the files of acknowledged segments go."""
    app.insert(10, 10_000)
    replicator.flush(LONG)
    cache, room = replicator._engine.cache, replicator._engine.capture._quota
    assert room.half_is_free()
    assert cache.usage() > 100_000
    disk.free = RESERVE - 50_000
    assert room.half_is_free()
    assert cache.usage() == 0
