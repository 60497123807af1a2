"""Several databases in one process: none in the way of another, and each error said."""

import logging
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from replicator import restore
from replicator.archive.keys import Keys
from replicator.config.file import ConfigFile
from replicator.errors import AlreadyRunning, ConfigError, NotDurable, NotRunning, StoreUnavailable
from replicator.sidecar import fleet as module
from replicator.sidecar.control import ask
from replicator.sidecar.fleet import Fleet
from replicator.store.directory import DirectoryStore
from replicator.system.locks import ReplicatorLock
from tests.helpers.replication import LONG, App, image_of, wait_for

NAMED = '[[database]]\npath = "{}"\n'


@pytest.fixture
def bucket(tmp_path):
    (tmp_path / "bucket").mkdir()
    return tmp_path / "bucket"


@pytest.fixture
def file(tmp_path, bucket):
    """A file about these paths, with databases in the place of those that have no wildcard."""

    def file(*paths, top="", missing=()):
        for path in paths:
            if "*" not in path and path not in missing:
                make(tmp_path / path)
        (tmp_path / "r.toml").write_text(
            f'url = "file://{bucket}"\nsync_interval = 0\npoll_interval = "50ms"\n{top}\n'
            + "".join(map(NAMED.format, paths))
        )
        return ConfigFile.load(tmp_path / "r.toml", {})

    return file


@pytest.fixture
def quick(monkeypatch):
    """The fleet looks all the time."""
    for name in ("LOOK", "SEARCH", "AGAIN"):
        monkeypatch.setattr(module, name, 0.01)


def make(path):
    with App(path) as app:
        app.insert(3)


def write(path):
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO t(body) VALUES (x'00')")
    connection.close()


def asked(path, command="status"):
    return ask(path.with_name(f".{path.name}-replicator"), {"command": command, "timeout": LONG})


def started(fleet):
    fleet.start()
    fleet.wait_started(lambda seconds: threading.Event().wait(seconds))
    return fleet


def ended(fleet, seconds=LONG):
    return fleet.flush(seconds, lambda: False)


def assert_restores(bucket, path, out):
    restore(store=DirectoryStore(bucket), prefix=path.name, output=out)
    assert Path(out).read_bytes() == image_of(path)


def test_every_database_is_replicated_and_answers_for_itself(file, bucket, tmp_path):
    """One process, and each has its place, its cache and its socket; all is durable at the
    end."""
    paths = [tmp_path / f"{name}.db" for name in "abcde"]
    with started(Fleet(file(*(path.name for path in paths)))) as fleet:
        for path in paths:
            write(path)
            asked(path, "flush")
            assert asked(path)["healthy"]
        write(paths[0])
        assert ended(fleet) == []
    for path in paths:
        assert_restores(bucket, path, tmp_path / f"restored-{path.name}")
        with pytest.raises(NotRunning):
            asked(path)


def test_a_further_database_takes_two_threads(file):
    """One captures, one uploads; all else is shared."""
    with started(Fleet(file(*(f"{n}.db" for n in range(12))))) as fleet:
        for member in fleet.members:
            member.replicator.flush(LONG)
        names = [thread.name.partition(":")[0] for thread in threading.enumerate()]
    assert names.count("replicator-capture") == names.count("replicator-upload") == 12
    assert names.count("replicator-lookout") == names.count("replicator-control") == 1
    assert names.count("replicator-attention") <= 1


def test_one_that_is_no_database_does_not_stop_the_others(file, tmp_path, caplog):
    """The log says it, its own status says it, and so does the end."""
    caplog.set_level(logging.INFO)
    settings = file("a.db", "bad.db", missing=["bad.db"])
    (tmp_path / "bad.db").write_bytes(b"no database, and long enough to tell" * 10)
    with started(Fleet(settings)) as fleet:
        asked(tmp_path / "a.db", "flush")
        status = asked(tmp_path / "bad.db")
        assert (status["state"], status["healthy"]) == ("failed", False)
        assert "not a SQLite database" in status["last_error"]
        (left,) = ended(fleet)
    assert left.config.database == tmp_path / "bad.db"
    assert left.error.exit_code == 2
    assert "bad.db is not replicated" in caplog.text


def test_what_could_not_start_is_tried_again(file, tmp_path, bucket, quick):
    """A file that becomes a database, a lock that is given back: no restart is needed."""
    settings = file("a.db", "b.db", missing=["a.db"])
    (tmp_path / "a.db").write_bytes(b"no database, and long enough to tell" * 10)
    taken = ReplicatorLock(tmp_path / "b.db", tmp_path / ".b.db-replicator")
    taken.acquire()
    with started(Fleet(settings)) as fleet:
        wait_for(lambda: isinstance(fleet.members[1].error, AlreadyRunning))
        assert not (tmp_path / ".b.db-replicator" / "control.sock").exists()
        (tmp_path / "a.db").unlink()
        make(tmp_path / "a.db")
        taken.release()
        wait_for(lambda: all(member.started for member in fleet.members))
        assert ended(fleet) == []


def test_one_that_is_fenced_does_not_stop_the_others(file, tmp_path, bucket, quick, caplog):
    """The others go on, what failed is said once, and the end says it again."""
    with started(Fleet(file("a.db", "b.db"))) as fleet:
        asked(tmp_path / "a.db", "flush")
        DirectoryStore(bucket).put(Keys("a.db").wal(2), b"somebody else's")
        write(tmp_path / "a.db")
        wait_for(lambda: fleet.members[0].error is not None)
        assert not fleet.hopeless
        assert asked(tmp_path / "a.db")["state"] == "failed"
        write(tmp_path / "b.db")
        assert asked(tmp_path / "b.db", "flush")["txid"] == 2
        (left,) = ended(fleet)
    assert left.error.exit_code == 6
    assert caplog.text.count("a.db is not replicated any more") == 1


def test_without_anybody_left_there_is_no_hope(file, tmp_path, bucket, quick):
    """Then the process ends by itself; not while databases may still appear."""
    with started(Fleet(file("a.db"))) as fleet:
        asked(tmp_path / "a.db", "flush")
        DirectoryStore(bucket).put(Keys("a.db").wal(2), b"somebody else's")
        write(tmp_path / "a.db")
        wait_for(lambda: fleet.hopeless)
    with Fleet(file("x/*.db")) as fleet:
        assert not fleet.hopeless


def test_a_database_that_appears_is_followed(file, tmp_path, bucket, quick):
    """And one that would share a place is refused, without harm to the others."""
    (tmp_path / "t" / "more").mkdir(parents=True)
    with started(Fleet(file("a.db", "t/**/*.db"))) as fleet:
        make(tmp_path / "t" / "b.db")
        wait_for(lambda: len(fleet.members) == 2)
        make(tmp_path / "t" / "a.db")  # whose place a.db has
        make(tmp_path / "t" / "more" / "c.db")
        wait_for(lambda: len(fleet.members) == 3)
        wait_for(lambda: all(member.started for member in fleet.members))
        assert [member.config.target.prefix for member in fleet.members] == [
            "a.db",
            "b.db",
            "more/c.db",
        ]
        assert ended(fleet) == []
    assert_restores(bucket, tmp_path / "t" / "b.db", tmp_path / "restored.db")


def test_a_database_that_vanishes_is_waited_for(file, tmp_path):
    """As with a single one: what was captured is durable, and nothing is wrong at the end."""
    with started(Fleet(file("a.db", "b.db"))) as fleet:
        asked(tmp_path / "a.db", "flush")
        for path in tmp_path.glob("a.db*"):
            path.unlink()
        wait_for(lambda: asked(tmp_path / "a.db")["state"] == "waiting")
        assert ended(fleet) == []


def test_a_store_that_is_away_is_not_waited_for_longer_than_allowed(file, tmp_path, bucket):
    """Whatever the number of databases, the end is bounded, and names each that is late."""
    with started(Fleet(file("a.db", "b.db", "c.db"))) as fleet:
        for name in "abc":
            asked(tmp_path / f"{name}.db", "flush")
        bucket.rename(tmp_path / "away")
        write(tmp_path / "a.db")
        write(tmp_path / "c.db")
        wait_for(lambda: asked(tmp_path / "a.db")["pending_segments"])
        late = ended(fleet, 0.0)
        assert [type(member.error) for member in late] == [NotDurable, NotDurable]
        assert [member.config.database.name for member in late] == ["a.db", "c.db"]


def test_missing_databases_are_restored_first(file, tmp_path, bucket):
    """Those that ask for it, or all before an application starts; the others stay missing."""
    with started(Fleet(file("a.db", "b.db"))) as fleet:
        assert ended(fleet) == []
    images = {name: image_of(tmp_path / name) for name in ("a.db", "b.db")}
    for path in [*tmp_path.glob("?.db*"), *tmp_path.glob(".?.db-replicator/*.db*")]:
        path.unlink()
    text = (tmp_path / "r.toml").read_text() + "auto_restore = true\n"  # of the last entry
    (tmp_path / "r.toml").write_text(text)
    settings = ConfigFile.load(tmp_path / "r.toml", {})
    with Fleet(settings) as fleet:
        (restored,) = fleet.restore_missing(everything=False)
        assert restored.config.database.read_bytes() == images["b.db"]
        assert not (tmp_path / "a.db").exists()
        (restored,) = fleet.restore_missing(everything=True)
        assert restored.config.database.read_bytes() == images["a.db"]
        started(fleet)
        fleet.wait_joined(fleet.members, lambda seconds: threading.Event().wait(seconds))
        assert {member.replicator.status().txid for member in fleet.members} == {1}


def test_a_restore_that_fails_keeps_an_application_from_beginning_anew(file, tmp_path, bucket):
    """Without one, it is said, and the others go on."""
    settings = file("a.db", "b.db", top="auto_restore = true", missing=["b.db"])
    bucket.rename(tmp_path / "away")
    with Fleet(settings) as fleet:
        assert fleet.restore_missing(everything=False) == []
        with pytest.raises((StoreUnavailable, ConfigError)):
            fleet.restore_missing(everything=True)


def test_entries_that_cannot_work_together_stop_the_start(file, tmp_path):
    """Before anything was touched: a person has to say which is right."""
    (tmp_path / "x").mkdir()
    with pytest.raises(ConfigError, match=r"x/a\.db"):
        Fleet(file("a.db", "x/a.db"))


def test_a_defect_at_a_start_concerns_one_database(file, tmp_path, monkeypatch, caplog):
    """Even what nobody foresaw."""
    real = module.SqliteReplicator.start

    def start(replicator):
        if replicator.config.database.name == "a.db":
            raise RuntimeError("made to fail")
        real(replicator)

    monkeypatch.setattr(module.SqliteReplicator, "start", start)
    with started(Fleet(file("a.db", "b.db"))) as fleet:
        (left,) = ended(fleet)
    assert "made to fail" in str(left.error)


def test_a_defect_of_the_fleet_does_not_end_it(file, monkeypatch, quick, caplog):
    """It looks again."""
    looks, again = [], threading.Event()

    def look(fleet):
        looks.append(1)
        if len(looks) < 3:
            raise (ConfigError("foreseen"), RuntimeError("not foreseen"))[len(looks) - 1]
        again.set()

    monkeypatch.setattr(Fleet, "look", look)
    with started(Fleet(file("a.db"))):
        assert again.wait(LONG)
    assert "foreseen" in caplog.text
    assert "the fleet met a defect" in caplog.text


def test_what_was_not_reached_before_the_end_is_not_durable(file):
    """A signal during the start: nothing is claimed of what was not looked at."""
    fleet = Fleet(file("a.db"))
    with fleet:
        (left,) = fleet.flush(0.0, lambda: True)
        assert isinstance(left.error, NotDurable)
        fleet.start()
    assert not left.started


def test_a_refusal_at_the_last_flush_is_that_members_own(file, monkeypatch):
    """It is not tried again, and its class is kept: it decides the exit code."""
    with started(Fleet(file("a.db", "b.db"))) as fleet:

        def refuse(timeout):
            raise StoreUnavailable("made to fail")

        monkeypatch.setattr(fleet.members[0].replicator, "flush", refuse)
        (left,) = ended(fleet)
    assert (left, left.error.exit_code) == (fleet.members[0], 5)


def test_a_socket_that_cannot_be_had_does_not_stop_replication(file, monkeypatch, caplog):
    """Commands are not answered then, and that is said."""

    def refuse(self):
        raise OSError("no room")

    monkeypatch.setattr(module.ControlSocket, "__enter__", refuse)
    with started(Fleet(file("a.db"))) as fleet:
        assert ended(fleet) == []
    assert "no command will be answered: no room" in caplog.text


def test_no_more_starts_at_once_than_allowed(file, monkeypatch):
    """Five hundred databases must not take five hundred snapshots at once."""
    from replicator.engine import shared
    from replicator.engine.resume import Joiner

    now, most, lock = [0], [0], threading.Lock()
    real = Joiner.join

    def join(joiner, *args):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        try:
            time.sleep(0)  # let another thread run
            return real(joiner, *args)
        finally:
            with lock:
                now[0] -= 1

    monkeypatch.setattr(Joiner, "join", join)
    with started(Fleet(file(*(f"{n}.db" for n in range(12))))) as fleet:
        assert ended(fleet) == []
    assert most[0] <= shared.JOINS
