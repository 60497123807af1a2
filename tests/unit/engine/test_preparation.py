"""A start before the engine: what is restored, moved aside, waited for or refused."""

import shutil
import sqlite3

import pytest

from replicator import restore
from replicator.errors import (
    AccessDenied,
    AlreadyRunning,
    ConfigError,
    DatabaseMissing,
    Fenced,
    RefusedError,
    StoreUnavailable,
    TargetExists,
)
from replicator.recovery.start import Command
from tests.helpers.replication import (
    LONG,
    App,
    config_for,
    image_of,
    replicating,
    replicator_for,
    restored,
    wait_for,
)


@pytest.fixture
def lost_machine(path, store):
    """(image, txid) of a database whose machine was lost, with its cache."""
    with App(path) as app, replicating(path, store) as replicator:
        app.insert(50)
        txid = replicator.flush(LONG).txid
        image = app.image()
    lose(path, cache=True)
    return image, txid


def lose(path, *, cache=False):
    for file in path.parent.glob("app.db*"):
        if file.is_file():
            file.unlink()
    if cache:
        shutil.rmtree(path.with_name(".app.db-replicator"))


def sql(path, *statements):
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in ("PRAGMA journal_mode=WAL", *statements):
        connection.execute(statement).fetchall()
    connection.close()


def fresh(path):
    sql(path, "PRAGMA user_version=1")


def empty(path):
    path.touch()


def nothing(path):
    pass


def table(path):
    sql(path, "CREATE TABLE t(x)")


def garbage(path):
    path.write_bytes(b"not a database" * 100)


def orphan(path):
    path.with_name("app.db-wal").write_bytes(b"precious")


def aside(path):
    """The files that were moved aside, with their content."""
    return {
        file.name: file.read_bytes()
        for directory in path.parent.glob("app.db.stale-*")
        for file in directory.iterdir()
    }


def refusal(replicator):
    """The error of a start that is refused, at once or at the comparison."""
    try:
        replicator.start()
        wait_for(lambda: replicator.failed)
    except RefusedError as error:
        return error
    error = replicator.failed
    replicator.stop()
    return error


def check_unchanged(store, lost_machine, out):
    """A plain restore gives the newest state of before."""
    report, data = restored(store, out)
    assert (data, report.txid) == lost_machine


@pytest.mark.parametrize("make", [nothing, empty, fresh])
@pytest.mark.parametrize("command", [Command.AROUND, Command.AUTO_RESTORE])
def test_nothing_with_a_history_is_restored(path, store, lost_machine, make, command):
    """A missing file, an empty one, one without tables: the database comes back, and what was
    there was moved aside. Replication continues without a new generation."""
    make(path)
    before = path.read_bytes() if path.exists() else None
    replicator = replicator_for(path, store)
    report = replicator.prepare(command)
    assert (path.read_bytes(), report.txid) == lost_machine
    assert aside(path).get("app.db") == before
    replicator.start()
    assert replicator.flush(LONG).txid == lost_machine[1]
    replicator.stop()


@pytest.mark.parametrize("make", [nothing, empty, fresh, table])
def test_without_a_history_every_start_begins(path, store, make):
    """The first start of all, as before."""
    make(path)
    replicator = replicator_for(path, store, auto_restore=True)
    replicator.start()
    if make is table:
        assert replicator.flush(LONG).txid == 1
    replicator.stop()
    assert aside(path) == {}


@pytest.mark.parametrize(
    ("make", "code"), [(fresh, "fresh_over_history"), (table, "different_database")]
)
def test_an_application_that_started_first(path, store, lost_machine, out, make, code):
    """A plain sidecar begins no generation over the history."""
    make(path)
    assert refusal(replicator_for(path, store)).code == code
    check_unchanged(store, lost_machine, out)


@pytest.mark.parametrize("make", [nothing, empty])
def test_a_missing_database_is_waited_for_and_reported(path, store, lost_machine, out, make):
    """A plain sidecar waits, is not healthy, and names the way out; a restore makes it healthy."""
    make(path)
    with replicating(path, store) as replicator:
        wait_for(lambda: "archive: history" in str(replicator.status().last_error))
        status = replicator.status()
        assert (status.state, status.healthy) == ("waiting", False)
        path.unlink(missing_ok=True)
        restore(store=store, prefix="app.db", output=path)
        wait_for(lambda: replicator.status().healthy)
        assert replicator.flush(LONG).txid == lost_machine[1]


def test_a_missing_database_without_a_history(path, store):
    """It is waited for as any other, and the archive is asked once."""
    with replicating(path, store) as replicator:
        wait_for(lambda: replicator._engine.capture._asked)
        assert isinstance(replicator._engine.capture.health.error, DatabaseMissing)
        asked = len(store.calls)
        with App(path):
            replicator.flush(LONG)
        assert store.keys("list")[:1] == [call[1] for call in store.calls[:asked]][:1]


@pytest.mark.parametrize("make", [table, garbage, orphan, fresh, nothing])
def test_the_order_to_restore(path, store, lost_machine, out, make):
    """Whatever is there moves aside, byte for byte, and the database of the bucket is followed."""
    make(path)
    files = {file.name: file.read_bytes() for file in path.parent.glob("app.db*")}
    with replicating(path, store, restore=True) as replicator:
        assert replicator.flush(LONG).txid == lost_machine[1]
        assert path.read_bytes() == lost_machine[0]
    moved = aside(path)
    assert {name: moved[name] for name in files if "-shm" not in name} == files
    with App(path) as app, replicating(path, store, restore=True) as replicator:
        app.insert()  # the order does no harm to what continues
        assert replicator.flush(LONG).txid == lost_machine[1] + 1
    assert len(list(path.parent.glob("app.db.stale-*"))) == (make is not nothing)


def test_the_order_to_restore_over_a_stale_cache(path, store, tmp_path, out):
    """The database and its cache are an older copy: the order brings the newest state."""
    with App(path) as app:
        with replicating(path, store) as replicator:
            app.insert()
            replicator.flush(LONG)
        (tmp_path / "copy").mkdir()
        copy = tmp_path / "copy" / "app.db"
        shutil.copytree(replicator.config.cache, copy.with_name(".app.db-replicator"))
        app.checkpoint("TRUNCATE")
        shutil.copy(path, copy)
        with replicating(path, store) as replicator:
            app.insert()
            txid = replicator.flush(LONG).txid
            image = app.image()
    with replicating(copy, store, restore=True) as replicator:
        assert replicator.flush(LONG).txid == txid
        assert image_of(copy) == image
    assert len(list(copy.parent.glob("app.db.stale-*"))) == 1


def test_the_order_to_restore_over_another_file_beside_the_cache(path, store):
    """The cache continues the archive, but the file is not the one that it followed."""
    with App(path) as app, replicating(path, store) as replicator:
        app.insert(20)
        txid, image = replicator.flush(LONG).txid, app.image()
    with App(path.with_name("other.db")) as other:
        other.insert(30)
        other.checkpoint("TRUNCATE")
    for file in path.parent.glob("app.db*"):
        file.unlink()
    path.with_name("other.db").rename(path)
    with replicating(path, store, restore=True) as replicator:
        assert replicator.flush(LONG).txid == txid
        assert image_of(path) == image
    assert len(list(path.parent.glob("app.db.stale-*"))) == 1


def test_the_order_to_restore_after_a_restore(path, store, lost_machine, out):
    """A database that was restored here and written since continues, and stays."""
    restore(store=store, prefix="app.db", output=path)
    with App(path) as app:
        app.insert()
        with replicating(path, store, restore=True) as replicator:
            assert replicator.flush(LONG).txid == lost_machine[1] + 1
        assert restored(store, out)[1] == app.image()
    assert aside(path) == {}


def test_a_database_in_use_is_not_moved(path, store, lost_machine):
    """The application would write to the moved file."""
    with App(path) as app:
        with pytest.raises(TargetExists) as refused:
            replicator_for(path, store, restore=True).start()
        app.insert()
    assert refused.value.code == "target_in_use"
    assert aside(path) == {}


@pytest.mark.parametrize("make", [nothing, table])
def test_a_wrong_prefix(path, store, make):
    """`expect=existing`: a bucket without the archive is refused, and nothing is written to it."""
    make(path)
    with pytest.raises(RefusedError) as refused:
        replicator_for(path, store, expect="existing").start()
    assert refused.value.code == "expected_existing"
    assert store.keys("put") == []


@pytest.mark.parametrize(("make", "code"), [(nothing, "expected_new"), (table, "expected_new")])
def test_a_prefix_in_use(path, store, lost_machine, out, make, code):
    """`expect=new`: an archive that the database does not continue is refused."""
    make(path)
    assert refusal(replicator_for(path, store, expect="new")).code == code
    check_unchanged(store, lost_machine, out)


@pytest.mark.parametrize("expect", ["existing", "new"])
def test_an_expectation_that_is_met(path, store, expect):
    """Every later start with the same settings works, also with `new`."""
    with App(path) as app:
        if expect == "existing":
            with replicating(path, store) as replicator:
                replicator.flush(LONG)
        for _ in range(2):
            app.insert()
            with replicating(path, store, expect=expect) as replicator:
                replicator.flush(LONG)


def test_a_store_that_comes_back_in_time(path, store, lost_machine):
    """A start that must know asks again until the store answers."""
    asked = []

    def before(method, key):
        asked.append(key)
        if len(asked) < 3:
            raise StoreUnavailable("not yet")

    store.before = before
    replicator = replicator_for(path, store, auto_restore=True, wait_store=LONG)
    replicator.start()
    replicator.stop()
    assert path.read_bytes() == lost_machine[0]


def test_a_store_that_stays_away(path, store, lost_machine):
    """The start fails after the time, and makes no database."""
    store.go_away()
    with pytest.raises(StoreUnavailable):
        replicator_for(path, store, auto_restore=True, wait_store=0.0).start()
    assert not path.exists()


def test_a_store_that_refuses(path, store, lost_machine):
    """No time mends that."""

    def before(method, key):
        raise AccessDenied("who are you")

    store.before = before
    with pytest.raises(AccessDenied):
        replicator_for(path, store, auto_restore=True, wait_store=LONG).start()
    with replicating(path, store) as replicator:  # a plain sidecar waits, and reports it
        wait_for(lambda: replicator.status().last_error)
        assert not replicator.status().healthy


def test_a_log_without_its_database_is_refused(path, store, lost_machine):
    """Its transactions may be the only copy."""
    orphan(path)
    with pytest.raises(RefusedError) as refused:
        replicator_for(path, store, auto_restore=True).start()
    assert refused.value.code == "orphaned_log"
    assert path.with_name("app.db-wal").read_bytes() == b"precious"


def test_two_orders_exclude_each_other(path):
    """One keeps what the other moves aside."""
    with pytest.raises(ConfigError):
        config_for(path, take_over=True, restore=True)


def test_the_decision_is_in_the_log(path, store, lost_machine, caplog):
    """With its inputs and its code."""
    caplog.set_level("INFO")
    with replicating(path, store, auto_restore=True) as replicator:
        replicator.flush(LONG)
    assert (
        "start: restore (missing_restored); database: missing; archive: history; asked: "
        "run --auto-restore, order none, expect any" in caplog.text
    )
    assert "(equal)" in caplog.text


def test_a_start_that_was_prepared_can_be_given_up(path, store, lost_machine):
    """The lock is free again."""
    first = replicator_for(path, store)
    first.prepare(Command.AROUND)
    first.stop()
    with replicating(path, store) as replicator:
        replicator.flush(LONG)


def test_if_missing_counts_an_empty_file_as_missing(path, store, lost_machine):
    """As does one without tables; one with a table is left alone."""
    for number, make in enumerate((empty, fresh, table)):
        lose(path)
        make(path)
        report = restore(store=store, prefix="app.db", output=path, if_missing=True)
        assert bool(report.objects) == (make is not table)
        assert len(list(path.parent.glob("app.db.stale-*"))) == min(number + 1, 2)


def test_a_command_waits_for_the_comparison(path, store, lost_machine):
    """`decided` is the sign that it ended, here with a refusal."""
    table(path)
    replicator = replicator_for(path, store)
    assert not replicator.decided
    replicator.start()
    wait_for(lambda: replicator.decided)
    assert isinstance(wait_for(lambda: replicator.failed), Fenced)
    replicator.stop()


@pytest.fixture
def lost_with_its_cache(path, store):
    """(image, txid) of a database that was removed while commits waited in its cache."""
    with App(path) as app, replicating(path, store) as replicator:
        replicator.flush(LONG)
        app.insert(50)
        durable = replicator.flush(LONG).txid
        store.go_away()
        app.insert()
        wait_for(lambda: replicator.status().txid > durable)
        found = app.image(), replicator.status().txid
    lose(path)
    store.come_back()
    return found


@pytest.mark.parametrize("make", [nothing, empty, fresh])
@pytest.mark.parametrize("command", [Command.AROUND, Command.AUTO_RESTORE])
def test_commits_in_the_cache_are_sent_before_the_restore(
    path, store, lost_with_its_cache, out, make, command
):
    """Otherwise the live file lacks commits that were acknowledged."""
    make(path)
    replicator = replicator_for(path, store)
    report = replicator.prepare(command)
    assert (path.read_bytes(), report.txid) == lost_with_its_cache
    replicator.start()
    assert replicator.flush(LONG).txid == lost_with_its_cache[1]
    replicator.stop()
    check_unchanged(store, lost_with_its_cache, out)


def another_machine_continues(path, store, tmp_path):
    """It restores what is in the bucket, and appends."""
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "app.db"
    restore(store=store, prefix="app.db", output=other)
    with App(other) as app, replicating(other, store) as replicator:
        app.insert()
        return replicator.flush(LONG).txid, app.image()


def the_store_lost_the_archive(path, store, tmp_path):
    """But for its first objects, as after the restore of an old copy of the bucket."""
    newest = max(info.key for info in store.inner.list("app.db/wal/"))
    store.inner.delete(newest)


def the_disk_damaged_the_cache(path, store, tmp_path):
    """After the segment was offered to the store."""
    for file in path.with_name(".app.db-replicator").glob("segments/*"):
        file.write_bytes(b"x" * file.stat().st_size)


@pytest.mark.parametrize(
    "meanwhile",
    [another_machine_continues, the_store_lost_the_archive, the_disk_damaged_the_cache],
)
def test_commits_in_the_cache_that_cannot_be_sent(
    path, store, lost_with_its_cache, tmp_path, meanwhile
):
    """No older state takes the place of the database, unless that is the order."""
    there = meanwhile(path, store, tmp_path)
    before = [info.key for info in store.inner.list("")]
    with pytest.raises(RefusedError) as refused:
        replicator_for(path, store, auto_restore=True).start()
    assert refused.value.code == "cache_not_sent"
    assert not path.exists()
    assert [info.key for info in store.inner.list("")] == before
    with replicating(path, store, restore=True) as replicator:
        report = replicator.flush(LONG)
        assert image_of(path) != lost_with_its_cache[0]
        if there is not None:
            assert (report.txid, image_of(path)) == there


def test_commits_in_the_cache_while_the_store_is_away(path, store, lost_with_its_cache):
    """The start waits for it, also if it goes away between the answer and the upload."""
    puts = []

    def before(method, key):
        if method == "put":
            puts.append(key)
            if len(puts) < 3:
                raise StoreUnavailable("not yet")

    store.before = before
    with pytest.raises(StoreUnavailable):
        replicator_for(path, store, auto_restore=True, wait_store=0.0).start()
    assert not path.exists()
    with replicating(path, store, auto_restore=True, wait_store=LONG) as replicator:
        assert (image_of(path), replicator.flush(LONG).txid) == lost_with_its_cache


def test_commits_in_a_cache_of_another_volume(tmp_path, store):
    """The directory of the database is gone, the cache is not."""
    path, cache = tmp_path / "data" / "app.db", tmp_path / "cache"
    path.parent.mkdir()
    with App(path) as app, replicating(path, store, cache_dir=cache) as replicator:
        durable = replicator.flush(LONG).txid
        store.go_away()
        app.insert()
        wait_for(lambda: replicator.status().txid > durable)
        image, txid = app.image(), replicator.status().txid
    shutil.rmtree(path.parent)
    store.come_back()
    with replicating(path, store, cache_dir=cache, auto_restore=True) as replicator:
        assert (image_of(path), replicator.flush(LONG).txid) == (image, txid)
        with pytest.raises(AlreadyRunning):  # the lock next to the database is held
            replicator_for(path, store, cache_dir=tmp_path / "second").start()


def test_an_order_to_restore_sends_what_waits(path, store, lost_with_its_cache):
    """The order concerns the file; the cache continues the archive."""
    garbage(path)
    with replicating(path, store, restore=True) as replicator:
        assert (image_of(path), replicator.flush(LONG).txid) == lost_with_its_cache
