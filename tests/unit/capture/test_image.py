"""Images: the database as it was at one place of its log, whatever goes on meanwhile."""

import random

import pytest

from replicator.capture.image import Image
from replicator.capture.limits import CaptureLimits
from replicator.capture.reader import WalReader, no_wal
from replicator.errors import ContinuityLost, DatabaseUnusable
from replicator.format.database import lock_page
from replicator.format.wal import offset_of
from replicator.sqlite.live import LiveDatabase
from tests.helpers.bucket import plain_state
from tests.helpers.errors import raises
from tests.helpers.replication import App, image_of

pytestmark = pytest.mark.app(rows=120)

LIMITS = CaptureLimits()
SMALL = CaptureLimits(chunk_bytes=2 * 4120, hold_bytes=0)


def read_whole(image, between=lambda: None, step=3):
    data = b""
    for first in range(1, image.pages + 1, step):
        data += image.read(first, min(step, image.pages + 1 - first))
        between()
    return data


class Restless:
    """A writer that does something at every call: commits, checkpoints of every mode."""

    def __init__(self, app, seed):
        self.app, self.rng = app, random.Random(seed)
        app.run("PRAGMA busy_timeout=0")

    def __call__(self):
        for _ in range(self.rng.randrange(3)):
            self.app.run(
                self.rng.choice(
                    (
                        "INSERT INTO t(body) VALUES (randomblob(3000))",
                        "UPDATE t SET body = randomblob(400) "
                        f"WHERE id % 7 = {self.rng.randrange(7)}",
                        f"DELETE FROM t WHERE id % 11 = {self.rng.randrange(11)}",
                    )
                )
            )
        self.app.checkpoint(self.rng.choice(("PASSIVE", "RESTART", "TRUNCATE", "FULL")))


def test_there_is_no_image_of_a_position_with_pages_of_another_size(database):
    """Another database was copied over the followed one."""
    with raises(ContinuityLost, "page_size_changed"):
        Image(database, LIMITS, no_wal(1024))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("mark", ["zero", "above", "zero, log there"])
def test_an_image_stays_exact_under_a_writer_that_checkpoints(app, database, seed, mark):
    """Read slowly between commits and checkpoints, an image is the database as it was when the
    hold was opened, byte for byte, whichever read mark the hold got."""
    if mark == "zero":
        app.checkpoint("TRUNCATE")
    elif mark == "zero, log there":
        app.checkpoint("PASSIVE")
    before = image_of(app.path)
    hold = database.hold()
    restless = Restless(app, seed)
    with Image(database, LIMITS) as image:
        assert read_whole(image, restless) == before
        assert read_whole(image) == before  # and once more, with the log of today
    database.release(hold)
    assert app.db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("mark", ["zero", "above", "zero, log there"])
def test_an_image_stays_exact_while_its_holds_make_way(app, database, seed, mark):
    """The WAL is reset many times under an image that is read slowly, because each hold is
    released once the next one was opened and the pages are kept."""
    if mark == "zero":
        app.checkpoint("TRUNCATE")
    elif mark == "zero, log there":
        app.checkpoint("PASSIVE")
    before = image_of(app.path)
    hold = database.hold()
    restless, wals = Restless(app, seed), set()

    def move(image):
        nonlocal hold
        restless()
        for _ in range(2):  # the second one is on mark zero unless a commit came before
            fresh = database.hold()
            if restless.rng.random() < 0.3:
                restless()
            assert image.keep(1 << 30)
            database.release(hold)
            hold = fresh
            app.checkpoint()
        wals.add(database.index.state().salt1)

    with Image(database, LIMITS) as image:
        assert read_whole(image, lambda: move(image), step=1) == before
        assert read_whole(image) == before
    database.release(hold)
    assert len(wals) > 2


def test_an_image_keeps_no_more_than_it_may(app, database):
    """Then its hold has to stay, and protects it as before."""
    before = image_of(app.path)
    hold = database.hold()
    with Image(database, LIMITS) as image:
        app.run("UPDATE t SET body = randomblob(350)")
        fresh = database.hold()
        assert not image.keep(4096)
        database.release(fresh)
        app.checkpoint()
        assert read_whole(image) == before
    database.release(hold)


def test_a_wal_that_was_long_once_is_no_reason_to_stay(app, database):
    """Its file keeps the length, and a reset WAL uses little of it."""
    app.insert(3000)
    app.checkpoint()
    app.insert()
    assert database.wal.refresh().st_size > 900_000
    before = image_of(app.path)
    hold = database.hold()
    with Image(database, LIMITS) as image:
        app.run("UPDATE t SET body = randomblob(350) WHERE id = 1")
        fresh = database.hold()
        assert image.keep(40960)
        database.release(hold)
        app.checkpoint()
        assert read_whole(image) == before
    database.release(fresh)


def test_a_database_that_shrank_keeps_its_hold(app, database):
    """A checkpoint would cut pages off that the image has."""
    app.insert(200)
    before = image_of(app.path)
    hold = database.hold()
    with Image(database, LIMITS) as image:
        app.run("DELETE FROM t", "VACUUM")
        fresh = database.hold()
        assert not image.keep(1 << 30)
        database.release(fresh)
        app.checkpoint()
        assert read_whole(image) == before
    database.release(hold)


def test_commits_between_pin_and_image_are_in_it(app, database):
    """The image is at the log's end as read after the hold; its position says exactly where."""
    hold = database.hold()
    app.insert(30)
    expected = image_of(app.path)
    with Image(database, LIMITS) as image:
        position = image.position
        app.insert(5)
        assert read_whole(image) == expected
    log = app.path.with_name("app.db-wal").read_bytes()
    upto = log[: offset_of(position)]
    assert plain_state(app.path.read_bytes(), upto) == expected
    database.release(hold)


def test_an_image_at_a_given_position_leaves_later_commits_out(app, database):
    """With a position read after the hold, newer frames of the log do not count."""
    hold = database.hold()
    with Image(database, SMALL) as now:
        position = now.position
    expected = image_of(app.path)
    app.run("UPDATE t SET body = randomblob(350)")
    app.insert(90)
    with Image(database, SMALL, position) as image:
        assert image.position == position
        assert read_whole(image) == expected
    database.release(hold)


def test_a_log_that_is_reset_while_the_image_is_read(app, database):
    """On mark zero a writer restarts the log at will: then the file alone is the image."""
    app.checkpoint("PASSIVE")  # all of it in the file, the log still there
    expected = image_of(app.path)
    hold = database.hold()
    with Image(database, LIMITS) as image:
        first = image.read(1, 2)
        app.run("UPDATE t SET body = randomblob(350)")  # restarts the log at its first frame
        rest = image.read(3, image.pages - 2)
        assert first + rest == expected
    database.release(hold)


def test_a_log_that_is_reset_before_the_image_is_made(app, database):
    """The position belongs to a log that went since: all of it lies in the file."""
    app.checkpoint("PASSIVE")
    hold = database.hold()
    with Image(database, LIMITS) as now:
        position, expected = now.position, image_of(app.path)
    app.insert(30)
    with Image(database, LIMITS, position) as image:
        assert image.position == position
        assert read_whole(image) == expected
    database.release(hold)


def test_a_log_that_is_reset_while_it_is_scanned_is_read_again(app, database, monkeypatch):
    """The scan of a long log meets a restart: a second look settles it."""
    app.checkpoint("PASSIVE")
    hold = database.hold()
    original, once = WalReader.batches, []

    def batches(reader, found):
        if not once:
            once.append(1)
            app.run("UPDATE t SET body = randomblob(350)")
        return original(reader, found)

    monkeypatch.setattr(WalReader, "batches", batches)
    with Image(database, SMALL) as image:
        expected = image_of(app.path)
        assert read_whole(image) == expected
    database.release(hold)


def test_a_file_longer_than_its_header_says(path):
    """Space that was reserved behind the last page is no part of the database."""
    with App(path) as app:
        app.insert(10)
        app.checkpoint("TRUNCATE")
        expected = image_of(path)
        with open(path, "ab") as file:
            file.write(bytes(3 * 4096))
        database = LiveDatabase(path)
        hold = database.hold()
        with Image(database, LIMITS) as image:
            assert image.pages == len(expected) // 4096
            assert read_whole(image) == expected
        database.release(hold)
        database.close()


def test_a_header_without_a_count_counts_the_file(path):
    """Software older than SQLite 3.7.0 leaves the count empty; then the file's size tells."""
    with App(path) as app:
        app.insert(10)
        app.checkpoint("TRUNCATE")
    data = bytearray(path.read_bytes())
    data[28:32] = bytes(4)
    path.write_bytes(data)
    database = LiveDatabase(path)
    hold = database.hold()
    with Image(database, LIMITS) as image:
        assert image.pages == len(data) // 4096
    database.release(hold)
    database.close()


def test_the_lock_page_is_read_as_zeros(path):
    """Beyond 1 GiB (sparse) lies the page that holds SQLite's locks: never content."""
    size = 65536
    with App(path, page_size=size) as app:
        app.insert(2)
        app.checkpoint("TRUNCATE")
    hole = lock_page(size)
    with open(path, "r+b") as file:
        file.truncate((hole + 2) * size)
        file.seek((hole - 1) * size)
        file.write(b"locks live here" * 100)
        file.write(b"next page")
        file.seek(hole * size)
        file.write(b"a page with content")
        file.seek(28)
        file.write((hole + 2).to_bytes(4, "big"))
    database = LiveDatabase(path)
    hold = database.hold()
    with Image(database, LIMITS) as image:
        assert image.pages == hole + 2
        data = bytes(image.read(hole - 1, 3))
        assert data[size : 2 * size] == bytes(size)
        assert data[2 * size :].startswith(b"a page with content")
    database.release(hold)
    database.close()


def test_a_file_that_is_no_database_makes_no_image(app, database):
    """The file is damaged in place: an error, and nothing stays open."""
    content = app.path.read_bytes()
    app.path.write_bytes(b"x" * len(content))
    with raises(DatabaseUnusable, "not_a_database"):
        Image(database, LIMITS)
    app.path.write_bytes(content)
