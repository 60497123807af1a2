"""A restore to a path whose cache holds transactions that are not in the bucket."""

import shutil

import pytest

from replicator import restore
from replicator.errors import RefusedError
from tests.helpers.replication import LONG, App, image_of, replicating, restored, wait_for


@pytest.fixture
def waiting(path, store):
    """(image, txid) of a database of which one transaction waits in the cache; no file is left."""
    with App(path) as app, replicating(path, store) as replicator:
        app.insert()
        durable = replicator.flush(LONG).txid
        store.go_away()
        app.insert()
        wait_for(lambda: replicator.status().txid > durable)
        found = app.image(), durable + 1
    for file in path.parent.glob("app.db*"):
        file.unlink()
    store.come_back()
    return found


@pytest.mark.parametrize(
    "options", [{}, {"if_missing": True}, {"dry_run": True}, {"overwrite": True}]
)
def test_the_newest_state_is_refused(path, store, waiting, options):
    """It would be an older state than that of the cache. The error names both."""
    if "overwrite" in options:
        path.write_bytes(b"malformed" * 100)
    before = path.exists()
    with pytest.raises(RefusedError) as refused:
        restore(store=store, prefix="app.db", output=path, **options)
    assert refused.value.code == "cache_waits"
    assert f"transactions {waiting[1]} to {waiting[1]} wait" in str(refused.value)
    assert f"--txid {waiting[1] - 1}" in refused.value.hint
    assert path.exists() is before


def test_a_point_that_is_named_is_restored(path, store, waiting):
    """The user has chosen it."""
    assert restore(store=store, prefix="app.db", output=path, txid=waiting[1] - 1).objects


def test_other_paths_and_other_archives_are_not_concerned(path, store, waiting, out):
    """A machine without this cache, and a database of another prefix."""
    assert restored(store, out)[0].txid == waiting[1] - 1
    second, url = path.with_name("second.db"), "s3://bucket/second.db"
    with App(second), replicating(second, store, url=url) as replicator:
        txid = replicator.flush(LONG).txid
    assert restore(store=store, prefix="second.db", output=path).txid == txid


def test_after_the_cache_was_sent(path, store, waiting):
    """Nothing waits, and the restore is complete."""
    with replicating(path, store) as replicator:
        wait_for(lambda: replicator.status().durable_txid == waiting[1])
        assert restore(store=store, prefix="app.db", output=path).txid == waiting[1]
        assert image_of(path) == waiting[0]


def test_an_archive_that_another_writer_continued(path, store, waiting, out):
    """Its newest state is not older than that of the cache."""
    other = out / "app.db"
    restore(store=store, prefix="app.db", output=other)
    with App(other) as app, replicating(other, store) as replicator:
        app.insert()
        txid = replicator.flush(LONG).txid
    assert restore(store=store, prefix="app.db", output=path).txid == txid


def test_a_ledger_that_cannot_be_read(path, store, waiting, caplog):
    """It hinders no restore; a warning says so."""
    cache = path.with_name(".app.db-replicator")
    (cache / "state.db").write_bytes(b"x" * 5000)
    assert restore(store=store, prefix="app.db", output=path).txid == waiting[1] - 1
    assert str(cache) in caplog.text
    shutil.rmtree(cache)
