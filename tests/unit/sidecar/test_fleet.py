"""Several databases in one process: none stops another, and each error is reported."""

import contextlib
import json
import logging
import os
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from replicator import cli, restore
from replicator.archive.keys import Keys
from replicator.config.file import ConfigFile
from replicator.engine.resume import Resume
from replicator.engine.shared import JOINS
from replicator.errors import (
    AlreadyRunning,
    ConfigError,
    NotDurable,
    NotRunning,
    RefusedError,
    StoreUnavailable,
)
from replicator.sidecar.control_client import ask
from replicator.sidecar.fleet import Databases, Fleet, SidecarTimes
from replicator.store.directory import DirectoryStore
from replicator.system.locks import ReplicatorLock
from replicator.system.paths import cache_directory
from replicator.upload.fencing import archive_head
from tests.helpers.errors import raises
from tests.helpers.replication import LONG, App, image_of, wait_for

NAMED = '[[database]]\npath = "{}"\n'


QUICK = SidecarTimes(final_flush=LONG, check=0.01, search=0.01, retry=0.01)
PATIENT = SidecarTimes(final_flush=LONG)


@pytest.fixture
def file(tmp_path, bucket_dir):
    """A file of these paths; databases exist at those without a wildcard."""

    def file(*paths, top="", missing=()):
        for path in paths:
            if "*" not in path and path not in missing:
                make(tmp_path / path)
        (tmp_path / "r.toml").write_text(
            f'url = "file://{bucket_dir}"\nsync_interval = 0\npoll_interval = "50ms"\n{top}\n'
            + "".join(map(NAMED.format, paths))
        )
        return ConfigFile.load(tmp_path / "r.toml", {})

    return file


def never():
    return False


def fleet_of(file, times=PATIENT, hurry=never):
    return Fleet(Databases.in_file(file), times, hurry=hurry)


def make(path, *, rows=3):
    with App(path) as app:
        app.insert(rows)


def write(path):
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO t(body) VALUES (x'00')")
    connection.close()


def asked(path, command="status"):
    return ask(path.with_name(f".{path.name}-replicator"), {"command": command, "timeout": LONG})


def started(fleet):
    fleet.start()
    fleet.wait_ready([], lambda seconds: threading.Event().wait(seconds))
    return fleet


def ended(fleet):
    return fleet.flush()


def assert_restores(bucket, path, out):
    restore(store=DirectoryStore(bucket), prefix=path.name, output=out)
    assert Path(out).read_bytes() == image_of(path)


def test_every_database_is_replicated_and_answers_for_itself(file, bucket_dir, tmp_path):
    """One process; each database has its own archive, cache and socket, and is durable at the
    end."""
    paths = [tmp_path / f"{name}.db" for name in "abcde"]
    with started(fleet_of(file(*(path.name for path in paths)))) as fleet:
        for path in paths:
            write(path)
            asked(path, "flush")
            assert asked(path)["healthy"]
        write(paths[0])
        assert ended(fleet) == []
    for path in paths:
        assert_restores(bucket_dir, path, tmp_path / f"restored-{path.name}")
        with pytest.raises(NotRunning):
            asked(path)


def test_a_further_database_takes_two_threads(file):
    """One captures, one uploads; the other threads are shared."""
    with started(fleet_of(file(*(f"{n}.db" for n in range(12))))) as fleet:
        for member in fleet.members:
            member.replicator.flush(LONG)
        names = [thread.name.partition(":")[0] for thread in threading.enumerate()]
    assert names.count("replicator-capture") == names.count("replicator-upload") == 12
    assert names.count("replicator-watch") == names.count("replicator-control") == 1
    assert names.count("replicator-attention") <= 1


def test_one_that_is_no_database_does_not_stop_the_others(file, tmp_path, caplog):
    """The log, its own status and the last flush report the error."""
    caplog.set_level(logging.INFO)
    settings = file("a.db", "bad.db", missing=["bad.db"])
    (tmp_path / "bad.db").write_bytes(b"no database, and long enough to tell" * 10)
    with started(fleet_of(settings)) as fleet:
        asked(tmp_path / "a.db", "flush")
        status = asked(tmp_path / "bad.db")
        assert (status["state"], status["healthy"]) == ("failed", False)
        assert "not a SQLite database" in status["last_error"]
        (left,) = ended(fleet)
    assert left.config.database == tmp_path / "bad.db"
    assert left.error.exit_code == 2
    assert "bad.db is not replicated" in caplog.text


def test_a_start_that_failed_is_retried(file, tmp_path):
    """A file that becomes a database, a lock that is released: no restart is needed."""
    settings = file("a.db", "b.db", missing=["a.db"])
    (tmp_path / "a.db").write_bytes(b"no database, and long enough to tell" * 10)
    taken = ReplicatorLock(tmp_path / "b.db", tmp_path / ".b.db-replicator")
    taken.acquire()
    with started(fleet_of(settings, QUICK)) as fleet:
        wait_for(lambda: isinstance(fleet.members[1].error, AlreadyRunning))
        assert not (tmp_path / ".b.db-replicator" / "control.sock").exists()
        (tmp_path / "a.db").unlink()
        make(tmp_path / "a.db")
        taken.release()
        wait_for(lambda: all(member.started for member in fleet.members))
        assert ended(fleet) == []


def test_one_that_is_fenced_does_not_stop_the_others(file, tmp_path, bucket_dir, caplog):
    """The log reports the failure once, and the last flush reports it again."""
    with started(fleet_of(file("a.db", "b.db"), QUICK)) as fleet:
        asked(tmp_path / "a.db", "flush")
        DirectoryStore(bucket_dir).put(Keys("a.db").wal(2), b"another writer's")
        write(tmp_path / "a.db")
        wait_for(lambda: fleet.members[0].error is not None)
        assert not fleet.failed
        assert asked(tmp_path / "a.db")["state"] == "failed"
        write(tmp_path / "b.db")
        assert asked(tmp_path / "b.db", "flush")["txid"] == 2
        (left,) = ended(fleet)
    assert left.error.exit_code == 6
    assert caplog.text.count(f"replication of {tmp_path / 'a.db'} failed") == 1


def test_a_fleet_has_failed_when_all_its_databases_have(file, tmp_path, bucket_dir):
    """The process then ends, but not while databases may still appear."""
    with started(fleet_of(file("a.db"), QUICK)) as fleet:
        asked(tmp_path / "a.db", "flush")
        DirectoryStore(bucket_dir).put(Keys("a.db").wal(2), b"another writer's")
        write(tmp_path / "a.db")
        wait_for(lambda: fleet.failed)
    with fleet_of(file("x/*.db")) as fleet:
        assert not fleet.failed


def test_a_database_that_appears_is_followed(file, tmp_path, bucket_dir):
    """One that would share an archive is refused, without harm to the others."""
    (tmp_path / "t" / "more").mkdir(parents=True)
    with started(fleet_of(file("a.db", "t/**/*.db"), QUICK)) as fleet:
        make(tmp_path / "t" / "b.db")
        wait_for(lambda: len(fleet.members) == 2)
        make(tmp_path / "t" / "a.db")  # would share the archive of a.db
        make(tmp_path / "t" / "more" / "c.db")
        wait_for(lambda: len(fleet.members) == 3)
        wait_for(lambda: all(member.started for member in fleet.members))
        assert [member.config.address.prefix for member in fleet.members] == [
            "a.db",
            "b.db",
            "more/c.db",
        ]
        assert ended(fleet) == []
    assert_restores(bucket_dir, tmp_path / "t" / "b.db", tmp_path / "restored.db")


def test_a_database_that_vanishes_is_waited_for(file, tmp_path):
    """As a single one: its captured transactions are durable, and the end reports it."""
    with started(fleet_of(file("a.db", "b.db"))) as fleet:
        asked(tmp_path / "a.db", "flush")
        for path in tmp_path.glob("a.db*"):
            path.unlink()
        wait_for(lambda: asked(tmp_path / "a.db")["state"] == "waiting")
        status = asked(tmp_path / "a.db")
        assert status["durable_txid"] == status["txid"] > 0
        (missing,) = ended(fleet)
        assert (missing.config.database.name, missing.error.code) == ("a.db", "database_missing")


def test_the_last_flush_without_the_store_is_bounded(file, tmp_path, bucket_dir):
    """For any number of databases, and it returns each that is late."""
    times = SidecarTimes(final_flush=0)
    with started(fleet_of(file("a.db", "b.db", "c.db"), times)) as fleet:
        for name in "abc":
            asked(tmp_path / f"{name}.db", "flush")
        bucket_dir.rename(tmp_path / "away")
        write(tmp_path / "a.db")
        write(tmp_path / "c.db")
        wait_for(lambda: asked(tmp_path / "a.db")["pending_segments"])
        late = ended(fleet)
        assert [type(member.error) for member in late] == [NotDurable, NotDurable]
        assert [member.config.database.name for member in late] == ["a.db", "c.db"]


def test_missing_databases_are_restored_first(file, tmp_path, bucket_dir):
    """Those set to auto_restore, or all before an application starts; the rest stay missing."""
    with started(fleet_of(file("a.db", "b.db"))) as fleet:
        assert ended(fleet) == []
    images = {name: image_of(tmp_path / name) for name in ("a.db", "b.db")}
    for path in [*tmp_path.glob("?.db*"), *tmp_path.glob(".?.db-replicator/*.db*")]:
        path.unlink()
    text = (tmp_path / "r.toml").read_text() + "auto_restore = true\n"  # of the last entry
    (tmp_path / "r.toml").write_text(text)
    settings = ConfigFile.load(tmp_path / "r.toml", {})
    with fleet_of(settings) as fleet:
        assert fleet.prepare(around_command=False) == []
        started(fleet)
        wait_for(lambda: fleet.members[1].replicator.status().txid == 1)
        assert (tmp_path / "b.db").read_bytes() == images["b.db"]
        assert not (tmp_path / "a.db").exists()
    with fleet_of(settings) as fleet:
        (restored,) = fleet.prepare(around_command=True)
        assert restored.config.database.read_bytes() == images["a.db"]
        started(fleet)
        fleet.wait_ready(fleet.members, lambda seconds: threading.Event().wait(seconds))
        assert {member.replicator.status().txid for member in fleet.members} == {1}


def test_a_restore_that_fails_stops_an_application_from_a_new_start(file, tmp_path, bucket_dir):
    """Without an application the error is logged, and the other databases are replicated."""
    settings = file("a.db", "b.db", top="auto_restore = true", missing=["b.db"])
    bucket_dir.rename(tmp_path / "away")
    with started(fleet_of(settings)) as fleet:
        assert isinstance(fleet.members[1].error, (StoreUnavailable, ConfigError))
    with fleet_of(settings) as fleet, pytest.raises((StoreUnavailable, ConfigError)):
        fleet.prepare(around_command=True)


DEAD = """
[[database]]
path = "{}"
bucket = "b"
endpoint_url = "http://127.0.0.1:9"
region = "us-east-1"
auto_restore = true
wait_store = "1000h"
"""


@pytest.fixture
def dead(file, tmp_path, monkeypatch):
    """A file of six databases whose store does not answer, and after them those at ``paths``."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")

    def dead(*paths):
        file(*paths)
        text = (tmp_path / "r.toml").read_text()
        top, _, rest = text.partition("[[database]]")
        dead = "".join(DEAD.format(f"{name}.db") for name in "uvwxyz")
        (tmp_path / "r.toml").write_text(top + dead + "[[database]]" + rest)
        return ConfigFile.load(tmp_path / "r.toml", {})

    return dead


def test_a_store_that_is_away_delays_the_databases_of_no_other(dead, tmp_path):
    """Each endpoint has threads of its own, and the wait ends with the process."""
    with fleet_of(dead("a.db")) as fleet:
        fleet.prepare(around_command=False)
        fleet.start()
        wait_for(lambda: fleet.members[-1].replicator.status().durable_txid)
        assert len(fleet.members) == 7


def test_a_refusal_does_not_wait_for_the_store_of_another_database(dead, tmp_path):
    """The command does not run anyway."""
    settings = dead("a.db")
    (tmp_path / "a.db").rename(tmp_path / "a.db-wal")  # without its database
    with fleet_of(settings) as fleet, pytest.raises(RefusedError):
        fleet.prepare(around_command=True)


def test_entries_that_cannot_work_together_stop_the_start(file, tmp_path):
    """Before any of them is touched: a person has to decide which is right."""
    (tmp_path / "x").mkdir()
    with raises(ConfigError, "location_shared"):
        Databases.in_file(file("a.db", "x/a.db"))


def test_a_bug_at_a_start_concerns_one_database(file):
    """Its error has no class of its own, and the other databases are replicated."""

    def fail():
        raise RuntimeError("made to fail")

    with fleet_of(file("a.db", "b.db")) as fleet:
        fleet.members[0].replicator.start = fail
        started(fleet)
        (left,) = ended(fleet)
    assert left is fleet.members[0]
    assert "made to fail" in str(left.error)


class FailingFleet(Fleet):
    """Its first two checks fail."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.errors = [ConfigError("foreseen"), RuntimeError("not foreseen")]
        self.checked = threading.Event()

    def check(self):
        if self.errors:
            raise self.errors.pop(0)
        self.checked.set()


def test_a_bug_in_a_check_does_not_end_the_checks(file, caplog):
    """The log reports it, and the next check follows."""
    with started(FailingFleet(Databases.in_file(file("a.db")), QUICK, hurry=never)) as fleet:
        assert fleet.checked.wait(LONG)
    assert "foreseen" in caplog.text
    assert "unexpected error (bug)" in caplog.text


def test_a_database_that_was_not_started_before_the_end_is_not_durable(file):
    """A signal during the start: nothing is known of the databases that were not started."""
    hurried = [True]
    with fleet_of(file("a.db"), hurry=lambda: bool(hurried)) as fleet:
        (left,) = fleet.flush()
        hurried.clear()
        assert isinstance(left.error, NotDurable)
        fleet.start()
    assert not left.started


def test_commits_after_an_earlier_last_flush_are_in_the_last_one(file, tmp_path):
    """An application came back during the last flush of a sidecar, committed, and ended: its
    commits are newer than the target of the attempts before."""
    with started(fleet_of(file("a.db"))) as fleet:
        (member,) = fleet.members
        assert member.flush(LONG) is None
        before = member.durable_txid
        write(tmp_path / "a.db")
        assert member.flush(LONG) is None  # the same target
        assert ended(fleet) == []
        assert member.durable_txid == before + 1


def test_a_refusal_at_the_last_flush_is_not_retried(file):
    """Its class is kept: it decides the exit code."""
    with started(fleet_of(file("a.db", "b.db"))) as fleet:

        def refuse(timeout, last):
            raise StoreUnavailable("made to fail")

        fleet.members[0].replicator.finish = refuse
        (left,) = ended(fleet)
    assert (left, left.error.exit_code) == (fleet.members[0], 5)


def test_a_single_database_that_cannot_start_raises(file):
    """The process ends then, instead of a retry."""
    (config,) = file("a.db").configs()
    taken = ReplicatorLock(config.database, config.cache)
    taken.acquire()
    with (
        Fleet(Databases.single(config), QUICK, hurry=never) as fleet,
        pytest.raises(AlreadyRunning),
    ):
        fleet.start()
    taken.release()


def test_a_control_socket_that_cannot_be_opened_does_not_stop_replication(file, tmp_path, caplog):
    """The log warns that commands get no answer."""
    settings = file("a.db")
    (tmp_path / ".a.db-replicator" / "control.sock").mkdir(parents=True)
    with started(fleet_of(settings)) as fleet:
        assert ended(fleet) == []
    assert "commands get no answer" in caplog.text


def test_one_database_needs_no_further_threads(file):
    """Start, restore and last flush run in the caller, where a signal interrupts them."""
    (config,) = file("a.db").configs()
    threads = []
    with Fleet(Databases.single(config), PATIENT, hurry=never) as fleet:
        real = fleet.members[0].replicator.finish

        def finish(timeout, last):
            threads.append(threading.current_thread())
            return real(timeout, last)

        fleet.members[0].replicator.finish = finish
        fleet.start()
        assert ended(fleet) == []
        names = {thread.name for thread in threading.enumerate()}
    assert set(threads) == {threading.current_thread()}
    assert not [name for name in names if name.startswith(("replicator-start", "replicator-each"))]


def test_no_more_databases_join_at_once_than_allowed(file, monkeypatch):
    """Five hundred databases must not take five hundred snapshots at once."""
    now, most, lock = [0], [0], threading.Lock()
    real = Resume.join

    def join(resume, *args):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        try:
            time.sleep(0)  # let another thread run
            return real(resume, *args)
        finally:
            with lock:
                now[0] -= 1

    monkeypatch.setattr(Resume, "join", join)
    with started(fleet_of(file(*(f"{n}.db" for n in range(12))))) as fleet:
        assert ended(fleet) == []
    assert most[0] <= JOINS


def status_of(tmp_path, capsys, command="status"):
    """The exit code of a command for all databases of the file, and each answer by its name."""
    code = cli.call([command, "--config", str(tmp_path / "r.toml"), "--json"])
    return code, {Path(each["database"]).name: each for each in json.loads(capsys.readouterr().out)}


def test_the_sidecar_knows_databases_that_vanished(file, tmp_path, capsys):
    """The file system shows neither the database nor its directory; the sidecar is asked."""
    (tmp_path / "t").mkdir()
    for name in "ab":
        make(tmp_path / "t" / f"{name}.db")
    with started(fleet_of(file("t/*.db"), QUICK)):
        for name in "ab":
            asked(tmp_path / "t" / f"{name}.db", "flush")
        code, answers = status_of(tmp_path, capsys)
        assert (code, sorted(answers)) == (0, ["a.db", "b.db"])
        (tmp_path / "t" / "a.db").unlink()
        assert status_of(tmp_path, capsys, "flush")[0] == 2
        code, answers = status_of(tmp_path, capsys)
        assert (code, answers["a.db"]["healthy"], answers["b.db"]["healthy"]) == (5, False, True)
        (tmp_path / "t" / "b.db").unlink()  # now nothing matches the pattern
        code, answers = status_of(tmp_path, capsys)
        assert (code, answers["*.db"]["code"]) == (5, "no_match")
        assert not answers["b.db"]["healthy"]


def test_a_pattern_without_a_database_is_an_error_for_every_command(file, tmp_path, capsys):
    """While the sidecar waits for the first one, and without a sidecar; the end reports it."""
    settings = file("a.db", "t/*.db")
    with started(fleet_of(settings, QUICK)) as fleet:
        asked(tmp_path / "a.db", "flush")
        for command in ("status", "flush"):
            code, answers = status_of(tmp_path, capsys, command)
            assert (code, answers["*.db"]["code"]) == (2, "no_match")
        assert ended(fleet) == []
        ((_, problem),) = fleet.problems
        assert problem.exit_code == 2


def test_an_unprintable_name_neither_hides_databases_nor_stops_a_start(file, tmp_path, capsys):
    """It is reported by every command, and the others are replicated, now and after a restart."""
    (tmp_path / "t").mkdir()
    make(tmp_path / "t" / "a.db")
    settings = file("t/*.db")
    for _ in range(2):
        with started(fleet_of(settings, QUICK)) as fleet:
            make(tmp_path / "t" / "odd\n.db")
            make(tmp_path / "t" / "z.db")
            wait_for(lambda: len(fleet.members) == 2 and fleet.problems)
            wait_for(lambda: all(member.started for member in fleet.members))
            code, answers = status_of(tmp_path, capsys, "flush")
            assert (code, answers["odd\n.db"]["code"]) == (2, "config")
            assert answers["z.db"]["txid"] >= 1


def test_after_a_link_was_switched_the_sidecar_answers_where_it_leads(file, tmp_path, bucket_dir):
    """Commands and a second sidecar resolve the path anew; the new file is what they mean."""
    for name in ("r1", "r2"):
        (tmp_path / name).mkdir()
        make(tmp_path / name / "app.db")
    current = tmp_path / "current"
    current.symlink_to("r1")
    path = str(current / "app.db")
    with started(fleet_of(file("current/app.db", missing=["current/app.db"]), QUICK)):
        assert cli.call(["flush", path]) == 0
        for target in ("r2", "r1", "r2"):
            (tmp_path / "next").symlink_to(target)
            (tmp_path / "next").rename(current)
            wait_for(lambda: cli.call(["status", path]) == 0)
            write(tmp_path / target / "app.db")
            assert cli.call(["flush", path]) == 0
            out = tmp_path / f"restored-{len(list(tmp_path.iterdir()))}.db"
            assert_restores(bucket_dir, tmp_path / target / "app.db", out)
            with pytest.raises(AlreadyRunning):
                ReplicatorLock(tmp_path / target / "app.db", tmp_path / f"cache-{target}").acquire()


def switch(current, target):
    """``ln -sfn target current``, at one instant."""
    current.with_name("next").symlink_to(target)
    current.with_name("next").rename(current)


@pytest.fixture
def linked(tmp_path):
    """The path of a database below a link, which leads to one of two releases."""
    for name in ("r1", "r2"):
        (tmp_path / name).mkdir()
        make(tmp_path / name / "app.db", rows=100)
    (tmp_path / "current").symlink_to("r1")
    return tmp_path / "current" / "app.db"


def test_a_restart_after_a_switched_link_finds_the_cache(file, tmp_path, bucket_dir, linked):
    """The cache stayed next to the old file. The new file is the one that was followed last, so the
    archive continues, also with what waits in the cache; commands find the sidecar."""
    path = str(linked)

    def sidecar():
        return started(fleet_of(file("current/app.db", missing=["current/app.db"]), QUICK))

    with sidecar():
        assert cli.call(["flush", path]) == 0
        switch(linked.parent, "r2")
        wait_for(lambda: cli.call(["status", path]) == 0)
        assert cli.call(["flush", path]) == 0
    generations = {generation_of(bucket_dir)}
    for target in ("r2", "r2", "r1"):
        write(tmp_path / "r2" / "app.db")
        with sidecar() as fleet:
            assert cli.call(["flush", path]) == 0
            (member,) = fleet.members
            assert member.config.cache == cache_directory(tmp_path / "r1" / "app.db")
            assert_restores(bucket_dir, linked, tmp_path / f"out-{len(os.listdir(tmp_path))}.db")
            generations.add(generation_of(bucket_dir))
            switch(linked.parent, target)  # back to the place of the cache, at last
            wait_for(lambda: cli.call(["status", path]) == 0)
            write(linked)
            assert cli.call(["flush", path]) == 0
    assert len(generations) == 1


def generation_of(bucket_dir):
    """The generation of the newest state in the bucket."""
    with contextlib.closing(DirectoryStore(bucket_dir)) as store:
        return archive_head(store, Keys("app.db")).generation


@pytest.mark.parametrize("targets", [["r1", "r2"], ["r1", "r2", "r1"]], ids="-".join)
def test_a_link_that_was_switched_while_no_sidecar_ran(file, tmp_path, bucket_dir, linked, targets):
    """The file there is another database, with a cache that knows it or without one: it is refused,
    and the archive stays as it is."""
    *followed, other = targets

    def sidecar():
        return fleet_of(file("current/app.db", missing=["current/app.db"]), QUICK)

    with started(sidecar()):
        for target in followed:
            switch(linked.parent, target)
            wait_for(lambda: cli.call(["status", str(linked)]) == 0)
            assert cli.call(["flush", str(linked)]) == 0
    before = tree(bucket_dir)
    switch(linked.parent, other)
    with sidecar() as fleet:
        assert refusal(fleet).code == "different_database"
    assert tree(bucket_dir) == before


def refusal(fleet):
    """The error of a start that is refused, at once or when it compares."""
    try:
        fleet.start()
    except RefusedError as error:
        return error
    return wait_for(lambda: fleet.members[0].replicator.failed)


def tree(directory):
    """The names of all files below a directory."""
    return sorted(path for path in directory.rglob("*") if path.is_file())
