"""What is dropped from the cache because it was damaged may be on its way into the store."""

import threading

from replicator.model import Cause, Incident
from tests.helpers.replication import LONG, App, HookedStore, replicating, restored, wait_for


def test_a_segment_that_is_being_sent_is_not_replaced(tmp_path):
    """The join waits for the answer first: otherwise the store would come to hold it, and the
    segment captured in its place would find its key taken by "another writer"."""
    store, sent, go_on = HookedStore(), threading.Event(), threading.Event()

    def before(method, key):
        if method == "put" and "wal/" in key:
            sent.set()
            assert go_on.wait(LONG)

    with App(tmp_path / "app.db") as app, replicating(app.path, store) as replicator:
        app.insert(3)
        replicator.flush(LONG)
        store.before = before
        app.insert(3)
        assert sent.wait(LONG)
        engine = replicator._engine
        (record,) = engine.cache.pending()
        (engine.cache.directory / "segments" / record.file_name).write_bytes(b"damaged")
        engine.mailbox.report(
            Incident(Cause.SEGMENT_DAMAGED, "a segment was damaged", record.first_txid)
        )
        wait_for(lambda: engine.uploader._interrupted or not engine.cache.waits(record))
        go_on.set()
        app.insert(3)
        replicator.flush(LONG)
        assert replicator.failed is None
        assert restored(store, tmp_path)[1] == app.image()
