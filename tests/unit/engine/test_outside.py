"""The database file written by anything but its log: noticed, and caught up from what is there.

The file is changed by another process: closing a descriptor of it here would drop the locks of
everybody in this one.
"""

import os
import subprocess

import pytest

from replicator.system.paths import wal_path
from tests.helpers.replication import (
    LONG,
    App,
    image_of,
    replicating,
    restored,
    wait_for,
)

SHORT_WAL = {"capture": {"roll_over_frames": 8}, "session": {"roll_over_pause": 0.0}}
IMPATIENT = SHORT_WAL | {"capture": {"roll_over_frames": 8, "lock_patience": 0.0}}
UNEXAMINED = {"session": {"roll_over_pause": 0.0, "examine_pages": 0}}


def overwrite(path, page, data, at=2000):
    """Some bytes of a page, by default in the middle, where there is nothing but a blob."""
    subprocess.run(
        [
            "dd",
            f"of={path}",
            "oflag=seek_bytes",  # all of it in one write
            f"seek={4096 * (page - 1) + at}",
            "conv=notrunc",
            "status=none",
        ],
        input=data,
        check=True,
    )


def replicated(store, tmp_path):
    (tmp_path / "out").mkdir(exist_ok=True)
    return restored(store, tmp_path / "out")[1]


def fill(app, pages):
    """Each row has pages of its own; the log lies in the file afterwards."""
    app.insert(pages // 2, size=7000)
    app.checkpoint("TRUNCATE")


@pytest.mark.parametrize("frames", [3, 30], ids=["in the middle of a log", "log let go"])
def test_pages_written_outside_the_log_are_noticed(tmp_path, path, store, caplog, frames):
    """Another content under the same inode, size and page size: the next flush makes durable
    what is there now, as the next transaction, and says what happened."""
    with App(path) as app:
        fill(app, 30)
        with replicating(path, store, limits=SHORT_WAL) as replicator:
            for _ in range(frames):
                app.insert()
                before = replicator.flush(LONG)
            for page in range(10, 30):
                overwrite(path, page, b"not by SQLite")
            assert replicator.flush(LONG).txid == before.txid + 1
            assert replicated(store, tmp_path) == image_of(path)
            app.insert()
            replicator.flush(LONG)
            assert replicated(store, tmp_path) == image_of(path)
    assert "was overwritten" in caplog.text


def test_a_page_that_changed_lately_is_looked_at(tmp_path, path, store, caplog):
    """Of a thousand pages a single one is other than it was: chance would hardly find it, but
    it is what an older copy of the database gives away."""
    with App(path) as app:
        fill(app, 1000)
        with replicating(path, store, limits=SHORT_WAL | UNEXAMINED) as replicator:
            app.run("UPDATE t SET body = zeroblob(7000) WHERE id = 333")
            replicator.flush(LONG)
            (page,) = pages_with(path, bytes(4000))[:1]
            let_the_log_go(app, replicator)
            overwrite(path, page, b"as it was before")
            replicator.flush(LONG)
            assert replicated(store, tmp_path) == image_of(path)
    assert "was overwritten" in caplog.text


def pages_with(path, content):
    image = image_of(path)
    return [n + 1 for n in range(len(image) // 4096) if content in image[n * 4096 :][:4096]]


def let_the_log_go(app, replicator):
    """So that no page that changed before is in the log any more."""
    before = replicator.status().roll_overs
    while replicator.status().roll_overs < before + 2:
        app.insert()
        app.checkpoint()
        replicator.flush(LONG)


def test_a_file_touched_while_nothing_may_write_to_it_is_compared(path, store, caplog):
    """Between two logs no checkpoint can write to the file, so a new modification time alone
    is reason enough to compare all of it; equal means that nothing is shipped."""
    with App(path) as app, replicating(path, store, limits=SHORT_WAL) as replicator:
        for _ in range(30):
            app.insert()
            app.checkpoint()
            before = replicator.flush(LONG)
        while not replicator._engine.capture._session._holds.waiting:
            app.insert()
            before = replicator.flush(LONG)
        os.utime(path)
        assert replicator.flush(LONG) == before
        assert replicator.metrics.get("catch_ups") == 0
    assert "was overwritten" in caplog.text
    assert "nothing changed" in caplog.text or replicator.status().txid == before.txid


def test_a_file_that_was_no_database_for_a_while_is_compared(tmp_path, path, store):
    """A program that breaks the file and mends it may have changed any of its pages."""
    with App(path) as app:
        fill(app, 1000)
        with replicating(path, store, limits=UNEXAMINED) as replicator:
            app.insert()
            replicator.flush(LONG)
            overwrite(path, 1, b"broken", at=0)
            wait_for(lambda: replicator.status().state == "stalled")
            overwrite(path, 500, b"not by SQLite")
            overwrite(path, 1, b"SQLite", at=0)
            replicator.flush(LONG)
            assert replicated(store, tmp_path) == image_of(path)


def test_a_log_removed_while_in_use_is_noticed(tmp_path, path, store, caplog):
    """Only a person removes it during use, so the database is compared anew."""
    with App(path) as app, replicating(path, store) as replicator:
        app.insert(20)
        before = replicator.flush(LONG)
        os.link(wal_path(path), tmp_path / "moved")  # the path keeps its inode: no alarm
        assert replicator.flush(LONG) == before
        assert "removed while" not in caplog.text
        wal_path(path).unlink()
        wal_path(path).write_bytes((tmp_path / "moved").read_bytes())
        replicator.flush(LONG)
        assert replicated(store, tmp_path) == image_of(path)
    assert "was removed while it was in use" in caplog.text


def test_checkpoints_are_no_alarm(path, store, caplog):
    """Whatever SQLite itself writes to the file is what its log made of it."""
    with (
        App(path, autocheckpoint=5) as app,
        replicating(path, store, limits=SHORT_WAL) as replicator,
    ):
        for n in range(60):
            app.insert(n % 7 + 1)
            if n % 11 == 0:
                app.run("DELETE FROM t WHERE id % 3 = 0", "VACUUM")
            replicator.flush(LONG)
        assert replicator.metrics.get("catch_ups") == 0
    assert "checking how" not in caplog.text


def test_a_log_that_grows_is_said_once_for_each_doubling(path, store, caplog):
    """A reader that stays makes the log grow, as without a replicator; the status shows it."""
    with (
        App(path) as app,
        App(path) as reader,
        replicating(path, store, limits=IMPATIENT) as replicator,
    ):
        reader.run("BEGIN", "SELECT * FROM t")
        for _ in range(40):
            app.insert(250)
            replicator.flush(LONG)
        reader.run("COMMIT")
        said = caplog.text.count("cannot reset")
        assert 1 <= said <= 5, said
