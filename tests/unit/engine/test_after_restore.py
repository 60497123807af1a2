"""Replication after a restore: the log goes on, and says what happened."""

import errno
import os
import shutil

import pytest

from replicator import restore
from replicator.errors import Fenced
from replicator.store.memory import MemoryStore
from replicator.system.paths import restore_marker_path
from replicator.system.restore_marker import read_restore_marker
from tests.helpers.disk_faults import name_of
from tests.helpers.errors import raises
from tests.helpers.files import StrikingFiles
from tests.helpers.replication import App, replicate_once, replicating, restored

LONG = 60.0


@pytest.fixture
def lost_path(tmp_path):
    """The path of a database in a directory of its own."""
    (tmp_path / "app").mkdir()
    return tmp_path / "app" / "app.db"


@pytest.fixture
def past(lost_path):
    """A store that holds three transactions of a database which is lost, and its cache."""
    store = MemoryStore()
    with App(lost_path) as app, replicating(lost_path, store) as replicator:
        replicator.flush(LONG)
        app.insert()
        middle = replicator.flush(LONG)
        app.insert()
        last = replicator.flush(LONG)
    for name in ("app.db", "app.db-wal", "app.db-shm"):
        lost_path.with_name(name).unlink(missing_ok=True)
    return store, middle, last


def test_the_newest_state_goes_on_without_a_snapshot(past, lost_path, tmp_path):
    """The same generation, although the cache is gone too; the note has served its turn."""
    store, _, last = past
    shutil.rmtree(lost_path.with_name(".app.db-replicator"))
    restore(store=store, prefix="app.db", output=lost_path)
    assert read_restore_marker(lost_path).txid == last.txid
    with App(lost_path) as app, replicating(lost_path, store) as replicator:
        assert replicator.flush(LONG) == last
        app.insert()
        position = replicator.flush(LONG)
    assert position.generation == last.generation
    assert position.txid == last.txid + 1
    assert not restore_marker_path(lost_path).exists()
    assert restored(store, tmp_path)[1] == app.image()


def test_a_note_that_cannot_be_written_is_no_failure(past, lost_path, caplog):
    """The database is in its place already; what is missing is said, and replication goes on."""
    store, _, last = past
    files = StrikingFiles(name_of)
    files.strike(("write", "note"), 1, errno.ENOSPC, lasting=False)
    assert restore(store=store, prefix="app.db", output=lost_path, files=files).txid == last.txid
    assert "no space left on device; a replicator will not know" in caplog.text
    assert read_restore_marker(lost_path) is None
    with App(lost_path), replicating(lost_path, store) as replicator:
        assert replicator.flush(LONG) == last


@pytest.mark.parametrize("cache", ["kept", "lost"])
def test_an_older_state_is_the_next_transaction(past, lost_path, tmp_path, caplog, cache):
    """The log never goes back: with the cache only the pages that differ are sent, without it
    it takes an order, and a generation begins; either way the reason names the restore, and the
    later past stays."""
    store, middle, last = past
    caplog.set_level("INFO")
    if cache == "lost":
        shutil.rmtree(lost_path.with_name(".app.db-replicator"))
    restore(store=store, prefix="app.db", output=lost_path, txid=middle.txid)
    order = {"take_over": cache == "lost"}
    with App(lost_path) as app, replicating(lost_path, store, **order) as replicator:
        position = replicator.flush(LONG)
    assert (position.generation == last.generation) == (cache == "kept")
    assert f"it was restored to txid {middle.txid}" in caplog.text
    newest = max(info.key for info in store.list("app.db/wal/"))
    assert f"restored to txid {middle.txid}" in store.head(newest).metadata["reason"]
    assert restored(store, tmp_path)[1] == app.image()
    assert restored(store, tmp_path, txid=last.txid)[0].txid == last.txid


def test_an_older_state_without_an_order_is_refused(past, lost_path, tmp_path):
    """Without the cache a deliberate restore cannot be told from a machine that was left behind:
    the newest state stays what a plain restore gives."""
    store, middle, last = past
    shutil.rmtree(lost_path.with_name(".app.db-replicator"))
    restore(store=store, prefix="app.db", output=lost_path, txid=middle.txid)
    with App(lost_path), raises(Fenced, "older_database"):
        replicate_once(lost_path, store)
    assert restored(store, tmp_path)[0].txid == last.txid


@pytest.mark.parametrize("file", ["restored", "copied", "made anew", "advanced"])
def test_an_application_that_writes_first_after_a_restore(past, lost_path, tmp_path, file):
    """It wrote before the replicator started, on a machine without the cache: the restored file is
    known by its number, so the archive continues. Another file, or an archive that another writer
    continued since, is refused."""
    store, _, last = past
    shutil.rmtree(lost_path.with_name(".app.db-replicator"))
    restore(store=store, prefix="app.db", output=lost_path)
    if file == "copied":
        shutil.copy(lost_path, tmp_path / "copy")
        os.replace(tmp_path / "copy", lost_path)
    elif file == "made anew":
        with lost_path.open("wb"):  # the same file number, as after a removal
            pass
    elif file == "advanced":
        restore(store=store, prefix="app.db", output=tmp_path / "other.db")
        with App(tmp_path / "other.db") as other, replicating(other.path, store) as holder:
            other.insert()
            last = holder.flush(LONG)
    with App(lost_path) as app:
        app.insert()
        if file == "restored":
            assert replicate_once(lost_path, store).txid == last.txid + 1
            assert restored(store, tmp_path)[1] == app.image()
            return
        code = "older_database" if file == "advanced" else "different_database"
        with raises(Fenced, code):
            replicate_once(lost_path, store)
    assert restored(store, tmp_path)[0].txid == last.txid


@pytest.mark.parametrize("text", ["", "{", "[]", '{"txid": "soon"}', '{"tx": 1}'])
def test_a_note_that_says_nothing_is_none(lost_path, text):
    """Whatever lies there, it explains or it does not; nothing depends on it."""
    restore_marker_path(lost_path).parent.mkdir()
    restore_marker_path(lost_path).write_text(text)
    assert read_restore_marker(lost_path) is None
