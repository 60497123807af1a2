"""Standby: another process replicates the database, and this one continues after its end."""

import contextlib
import logging
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from replicator.config.file import ConfigFile
from replicator.errors import AlreadyRunning, NotDurable, RefusedError
from replicator.sidecar.control_client import ask
from replicator.sidecar.fleet import Databases, Fleet, SidecarTimes
from replicator.sidecar.standby import Standby, when_decided
from replicator.store.directory import DirectoryStore
from replicator.system.locks import ReplicatorLock
from tests.helpers.command_line import cache_of
from tests.helpers.locks import waited_for
from tests.helpers.replication import LONG, config_for, restored, wait_for

pytestmark = pytest.mark.app(rows=5)

QUICK = SidecarTimes(final_flush=LONG, poll=0.05, check=0.01, retry=0.01)


def never():
    return False


@pytest.fixture
def own_settings(path, app, bucket_dir):
    """The settings of a sidecar for one database."""
    return config_for(path, url=f"file://{bucket_dir}", prefix="app.db")


def fleet_of(own_settings):
    return Fleet(Databases.single(own_settings), QUICK, hurry=never)


@contextlib.contextmanager
def replicating(own_settings):
    """A fleet that replicates the database, and has decided its start."""
    with fleet_of(own_settings) as fleet:
        fleet.prepare(around_command=True)
        fleet.start()
        fleet.wait_ready([], lambda seconds: threading.Event().wait(seconds))
        yield fleet


@pytest.fixture
def first(own_settings):
    """The fleet that replicates the database already."""
    with replicating(own_settings) as fleet:
        yield fleet


@pytest.fixture
def held_lock(own_settings):
    """The lock of another process that has decided its start, and answers nothing."""
    lock = ReplicatorLock(own_settings.database, own_settings.cache)
    lock.acquire()
    lock.announce()
    yield lock
    lock.release()


def standby(own_settings):
    """(fleet, its member) around a command, of a database in use."""
    fleet = fleet_of(own_settings)
    assert fleet.prepare(around_command=True) == []
    fleet.start()
    fleet.wait_ready([], lambda _: False)
    return fleet, fleet.members[0]


def test_the_status_names_the_process_that_waits(own_settings):
    """Until it continues; then it answers, and waits no more."""

    def named():
        return ask(own_settings.cache, {"command": "status"})["standby"]

    with replicating(own_settings):
        assert named() == []
        second, member = standby(own_settings)
        wait_for(lambda: named() == [os.getpid()])
    with second:
        wait_for(lambda: member.standby is None)
        assert named() == []


def test_the_next_one_continues_with_the_same_generation(own_settings, path, app, bucket_dir, out):
    """And nothing is restored then, whatever its settings say: the application runs."""
    with replicating(own_settings) as first:
        before = first.members[0].replicator.flush(LONG)
        second, member = standby(replace(own_settings, auto_restore=True, restore=True))
        assert (member.started, member.failed, second.failed) == (False, False, False)
        app.insert(3)
    with second:
        wait_for(lambda: member.standby is None)
        after = ask(cache_of(path), {"command": "flush", "timeout": LONG})
        assert after == {"generation": before.generation, "txid": before.txid + 1}
        assert second.flush() == []
    assert restored(DirectoryStore(bucket_dir), out)[1] == app.image()


def test_a_start_waits_until_the_other_one_is_decided(caplog):
    """The other one may be restoring the database. The log says once what is waited for."""
    answers = [AlreadyRunning("taken", decided=False)] * 3 + [AlreadyRunning("taken", decided=True)]
    slept = []

    def start():
        raise answers.pop(0)

    with pytest.raises(AlreadyRunning):
        when_decided(start, slept.append)
    assert len(slept) == 3
    assert caplog.text.count("waiting for it") == 1


def test_the_settings_choose_between_standby_and_a_refusal(own_settings, first, path, tmp_path):
    """Without an answer: standby around a command, and for a file of several databases."""
    for setting, around, waits in (
        (None, True, True),
        (None, False, False),
        (True, False, True),
        (False, True, False),
    ):
        chosen = config_for(
            path,
            url=own_settings.url,
            prefix="app.db",
            **{} if setting is None else {"standby": setting},
        )
        with fleet_of(chosen) as fleet:
            if waits:
                fleet.prepare(around_command=around)
                assert fleet.members[0].standby is not None
            else:
                with pytest.raises(AlreadyRunning):
                    fleet.prepare(around_command=around)
    file = tmp_path / "several.toml"
    file.write_text(f'url = "{own_settings.url}"\n[[database]]\npath = "{path}"\n')
    with Fleet(Databases.in_file(ConfigFile.load(file, {})), QUICK, hurry=never) as fleet:
        fleet.start()
        wait_for(lambda: fleet.members[0].standby is not None)


def test_a_missing_database_with_a_history_is_not_left_to_the_command(own_settings, path, app):
    """The other process waits for the file, which only a restore brings back: it is refused."""
    app.insert()
    with fleet_of(own_settings) as fleet:
        fleet.prepare(around_command=False)
        fleet.start()
        assert fleet.flush() == []
    app.close()
    for file in path.parent.glob("app.db*"):
        file.unlink()
    held_lock = ReplicatorLock(own_settings.database, own_settings.cache)
    held_lock.acquire()
    held_lock.announce()
    with fleet_of(own_settings) as fleet, pytest.raises(RefusedError) as caught:
        fleet.prepare(around_command=True)
    assert caught.value.code == "missing_in_use"
    held_lock.release()


def test_the_other_one_makes_the_last_flush(own_settings, first, app, bucket_dir, out):
    """The command of the second ended first; its commits are in the same database."""
    second, member = standby(own_settings)
    with second:
        app.insert(4)
        assert second.flush() == []
        assert member.durable_txid == first.members[0].durable_txid
        assert restored(DirectoryStore(bucket_dir), out)[1] == app.image()
    assert first.members[0].started


def test_the_last_flush_claims_nothing_for_another_bucket(own_settings, first, path, tmp_path):
    """The first one replicates to where it was told to, which is not where the second one does."""
    other = config_for(path, url=f"file://{tmp_path}", prefix="app.db")
    with fleet_of(other) as fleet:
        fleet.prepare(around_command=True)
        assert isinstance(fleet.members[0].flush(LONG), NotDurable)


def test_a_last_flush_without_an_answer_is_retried_until_the_lock_is_free(
    own_settings, held_lock, app, path
):
    """The other process does not answer and then dies: the last flush is made here."""
    second, member = standby(own_settings)
    with second:
        assert isinstance(member.flush(0), NotDurable)
        released = threading.Timer(0.1, held_lock.release)
        released.start()
        assert second.flush() == []
        assert member.durable_txid == 1
        released.join()


def test_an_end_during_standby_leaves_the_lock_free(own_settings, held_lock, app):
    """The thread that waits gets the lock when the process is ending: it gives it back."""
    second, _ = standby(own_settings)
    with second:
        pass
    held_lock.release()

    def free():
        lock = ReplicatorLock(own_settings.database, own_settings.cache)
        try:
            lock.acquire()
        except AlreadyRunning:
            return False
        lock.release()
        return True

    wait_for(free)
    wait_for(
        lambda: not [t for t in threading.enumerate() if t.name.startswith("replicator-standby")]
    )


def test_a_start_that_fails_after_standby_is_retried(own_settings, held_lock, app, path):
    """The lock is free, but the path names no database for now."""
    second, member = standby(own_settings)
    with second:
        path.rename(path.with_name("kept"))
        path.write_bytes(b"no database, and long enough to see it" * 10)
        held_lock.release()
        wait_for(lambda: member.standby is None)
        assert not member.started
        path.with_name("kept").replace(path)
        wait_for(lambda: member.started)


def test_standby_costs_no_wake_up_and_little_log(own_settings, held_lock, caplog):
    """The thread sleeps in the kernel. The reminder comes once its time is over."""
    caplog.set_level(logging.INFO)
    own, threads, ends = ReplicatorLock(own_settings.database, own_settings.cache), [], []

    def wait():
        threads.append(threading.get_native_id())
        own.acquire(wait=True)

    waiting = Standby(
        own_settings,
        AlreadyRunning("taken"),
        wait,
        ends.append,
        own.release,
    )
    waiting.start()

    def switches():
        lines = Path(f"/proc/self/task/{threads[0]}/status").read_text().splitlines()
        return [line for line in lines if "ctxt_switches" in line]

    wait_for(lambda: waited_for(own_settings.cache / "lock"))
    before = switches()
    threading.Event().wait(0.3)
    assert switches() == before
    for _ in range(100):
        waiting.remind()
    assert len(caplog.records) == 1
    held_lock.release()
    wait_for(lambda: ends)
    assert ends == [None]
    own.release()
