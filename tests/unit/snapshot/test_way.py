"""A snapshot that is read for long is in no checkpoint's way."""

import threading

import pytest

from replicator.system.mailbox import Wanted
from tests.helpers.other_app import OtherApp
from tests.helpers.replication import LONG, HookedStore, replicating, restored, wait_for

SLOW = {"snapshot": {"block_bytes": 16384, "part_bytes": 65536}}


class SlowStore(HookedStore):
    """Takes no further part of a snapshot until ``go_on`` is set."""

    def __init__(self):
        super().__init__()
        self.go_on = threading.Event()
        self.before = self._wait

    def _wait(self, method, key):
        if method == "put_part":
            assert self.go_on.wait(LONG)


@pytest.mark.app(rows=5000)
@pytest.mark.parametrize("mode", ["RESTART", "TRUNCATE", "FULL"])
def test_a_checkpoint_does_not_wait_for_the_snapshot(app, tmp_path, mode):
    """It ends while the snapshot is read, again and again, also in further WALs, and the
    snapshot is exact."""
    store = SlowStore()
    with (
        replicating(app.path, store, limits=SLOW, sync_interval=0.0) as replicator,
        OtherApp(app.path) as other,
    ):
        store.go_on.set()
        replicator.flush(LONG)
        app.insert()
        txid, before = replicator.flush(LONG).txid, app.image()
        store.go_on.clear()
        asked = replicator._engine.mailbox.ask(Wanted.WHOLE_SNAPSHOT)
        snapshots = replicator._engine.capture._session.snapshots
        wait_for(lambda: snapshots.running)
        for rows in (5, 40, 5):
            other.run("UPDATE t SET body = randomblob(400) WHERE id % 7 = 3")
            app.insert(rows)
            assert other.run(f"PRAGMA wal_checkpoint({mode})")[0][0] == 0
        assert snapshots._job.hold is not None
        assert not snapshots._job.read.is_set()
        store.go_on.set()
        assert asked.result(LONG) == txid
        report, image = restored(store, tmp_path, txid=txid)
        assert image == before
        assert report.snapshot_txid == txid
        replicator.flush(LONG)
        assert restored(store, tmp_path)[1] == app.image()
