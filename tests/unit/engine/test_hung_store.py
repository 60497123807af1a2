"""A store that swallows requests without an answer: said within seconds, healed by itself."""

import threading

from tests.helpers.replication import HookedStore, replicating, restored, wait_for

LONG = 60.0


IMPATIENT = {"answer_patience": 0.05}  # four seconds are a long time in a test


class Swallowing:
    """From now on, calls about keys of one folder get no answer."""

    def __init__(self, store, folder):
        self.released = threading.Event()
        store.before = lambda method, key: folder in key and self.released.wait(LONG)


def test_an_append_without_an_answer_is_no_secret(app, tmp_path, caplog):
    """Status, error and log tell while it hangs; nothing is lost, nothing is restarted."""
    store = HookedStore()
    with replicating(app.path, store, limits=IMPATIENT) as replicator:
        replicator.flush(LONG)
        swallowing = Swallowing(store, "wal/")
        app.insert()
        wait_for(lambda: not replicator.status().healthy)
        status = replicator.status()
        assert status.state == "following"
        wait_for(lambda: "no answer from" in (replicator.status().last_error or ""))
        assert "no answer from" in caplog.text
        swallowing.released.set()
        replicator.flush(LONG)
        assert replicator.status().healthy
    assert restored(store, tmp_path)[1] == app.image()


def test_a_store_that_never_answers_at_the_start_is_no_secret(app, tmp_path, caplog):
    """The very first request hangs."""
    store = HookedStore()
    swallowing = Swallowing(store, "")
    with replicating(app.path, store, limits=IMPATIENT) as replicator:
        wait_for(lambda: "no answer from" in (replicator.status().last_error or ""))
        assert not replicator.status().healthy
        assert "no answer from" in caplog.text
        swallowing.released.set()
        replicator.flush(LONG)
    assert restored(store, tmp_path)[1] == app.image()


def test_nothing_in_the_bucket_is_all_of_it_behind(app, tmp_path):
    """Before the first snapshot is there, the lag is the database, and it grows older."""
    app.insert(50)
    store = HookedStore()
    store.go_away()
    with replicating(app.path, store, limits=IMPATIENT) as replicator:
        wait_for(lambda: replicator.status().state == "stalled")
        first = replicator.status()
        size = app.path.stat().st_size + app.path.with_name("app.db-wal").stat().st_size
        assert first.lag_bytes == size
        assert not first.healthy
        wait_for(lambda: replicator.status().lag_seconds > first.lag_seconds)
        store.come_back()
        replicator.flush(LONG)
        assert replicator.status().lag_bytes == 0
        assert replicator.status().lag_seconds == 0
