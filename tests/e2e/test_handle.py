"""The handle of an application on its sidecar: no file of the database is shared, and nothing ends
replication before the application ends."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import apsw
import pytest

from replicator import SqliteReplicator, SqliteReplicatorConfig, restore
from replicator.errors import (
    AlreadyRunning,
    ConfigError,
    DatabaseMissing,
    LocalIOError,
    NotDurable,
    ReplicatorError,
)
from replicator.handle.connect import ConnectTimes
from replicator.handle.handle import HandleTimes
from replicator.system.locks import DirLock
from tests.helpers.command_line import cache_of
from tests.helpers.errors import raises
from tests.helpers.handles import TOP, HandledApplication, sidecar_of
from tests.helpers.replication import LONG, App, wait_for


@pytest.fixture
def handled(tmp_path):
    """A database for applications with handles; no sidecar is left at the end."""
    application = HandledApplication(tmp_path)
    yield application
    wait_for(lambda: application.hurry() is None)


def config_of(handled, **settings):
    values = {"db_path": handled.path, "url": f"file://{handled.bucket}", "prefix": "app.db"}
    return SqliteReplicatorConfig(**values | settings)


AUDITED = """
    import json, os, sqlite3, sys
    from replicator import SqliteReplicator, SqliteReplicatorConfig
    path, url = sys.argv[1:]
    names = {path + suffix for suffix in ("", "-wal", "-shm", "-journal")}
    opened = []

    def audit(event, arguments):
        if event in ("open", "sqlite3.connect", "os.rename", "os.remove", "os.truncate"):
            opened.extend(str(each) for each in arguments if str(each) in names)

    def locks():
        with open("/proc/locks") as table:
            return [line.split()[1:] for line in table if f" {os.getpid()} " in line]

    application = sqlite3.connect(path, isolation_level=None)
    application.execute("PRAGMA journal_mode=WAL")
    application.execute("CREATE TABLE t (x)")
    application.execute("BEGIN")
    application.execute("SELECT * FROM t").fetchall()
    before = locks()
    sys.addaudithook(audit)
    config = SqliteReplicatorConfig(db_path=path, url=url, prefix="app.db")
    with SqliteReplicator(config) as replicator:
        replicator.flush(60)
        replicator.snapshot(60)
        replicator.repair(60)
        replicator.status(), replicator.failed, replicator.metrics.snapshot()
    heavy = {"boto3", "botocore", "numpy", "xxhash", "zstandard", "watchdog", "typer", "rich"}
    loaded = sorted(heavy & {*sys.modules})
    loaded += [name for name in sys.modules if name.startswith(("replicator.engine",))]
    print(json.dumps([opened, before, locks(), loaded]))
"""


def test_the_application_opens_no_file_of_its_database_for_us(handled):
    """No method opens the database, its WAL or its shared memory in the process of the
    application; its locks stay as they are, and no heavy module is loaded."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(AUDITED), handled.path, f"file://{handled.bucket}"],
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
        cwd=TOP,
    )
    assert done.returncode == 0, done.stderr
    opened, before, after, loaded = json.loads(done.stdout)
    assert (opened, loaded) == ([], [])
    assert before == after
    assert before  # the application has locks


def test_other_readers_of_the_file_in_the_application_are_harmless(handled):
    """An application opens the file with another copy of SQLite for each request, and reads it as
    a plain file; nothing of the history is lost or damaged."""
    app = App(handled.path)
    with SqliteReplicator(config_of(handled)) as replicator:
        for number in range(40):
            app.insert(3)
            other = apsw.Connection(str(handled.path))
            other.set_busy_timeout(5000)
            other.execute("INSERT INTO t(body) VALUES (randomblob(200))")
            other.close()
            handled.path.read_bytes()
            if number % 10 == 0:
                app.checkpoint("PASSIVE")
        replicator.flush(LONG)
        status = replicator.status()
        assert (status.healthy, status.last_error) == (True, None)
    image = app.image()
    assert handled.copy().read_bytes() == image
    app.db.close()


def test_another_sidecar_takes_over_from_one_that_was_killed(handled):
    """The sidecar is killed: the handle does not say that all is well, starts another one, and a
    flush in between waits for it."""
    app = App(handled.path)
    with SqliteReplicator(config_of(handled)) as replicator:
        replicator.flush(LONG)
        first = sidecar_of(handled.path)
        os.kill(first, signal.SIGKILL)
        app.insert(5)
        wait_for(lambda: sidecar_of(handled.path) != first)
        status = replicator.status()
        assert status.running or (status.healthy, status.state) == (False, "failed")
        position = replicator.flush(LONG)
        assert replicator.failed is None
        assert sidecar_of(handled.path) not in (first, None)
    assert position.txid
    assert handled.copy().read_bytes() == app.image()
    app.db.close()


def test_several_processes_share_one_sidecar(handled):
    """Workers that start at once get one sidecar; it follows until the last of them ends, however
    that ends, and everything of all is in the bucket then."""
    ends = ["returns", "killed", "exits_at_once", "forgets"]
    workers = [handled.start(end) for end in ends]
    for worker in workers:
        worker.communicate(timeout=LONG)
    assert [worker.returncode for worker in workers] == [0, -signal.SIGKILL, 0, 0]
    handled.wait_end()
    handled.check()
    assert len(handled.acknowledged()) == 4 * 20


def test_an_independent_sidecar_serves_handles(handled):
    """`replicator run` has the database: a handle attaches to it, does not end it, and is refused
    for another destination."""
    with App(handled.path) as app:
        run = subprocess.Popen(
            [sys.executable, "-m", "replicator", "run", handled.path, "--prefix", "app.db"],
            env=os.environ | {"REPLICATOR_URL": f"file://{handled.bucket}"},
        )
        try:
            wait_for(lambda: sidecar_of(handled.path) == run.pid)
            with SqliteReplicator(config_of(handled)) as replicator:
                app.insert()
                replicator.flush(LONG)
            assert run.poll() is None
            elsewhere = SqliteReplicator(config_of(handled, prefix="elsewhere"))
            with raises(ConfigError, code="other_destination"):
                elsewhere.start()
        finally:
            run.terminate()
            assert run.wait(LONG) == 0
    assert sidecar_of(handled.path) is None


@pytest.mark.parametrize("end", ["fork_workers", "parent_first"])
def test_forked_children_hold_the_sidecar(handled, end):
    """Children that never use the handle hold the sidecar as long as they live; one that uses it
    gets a lease of its own, and uses nothing of its parent."""
    assert handled.run(end) == 0, handled.log.read_text()
    handled.wait_end()
    handled.check()


def test_the_exception_of_the_block_is_not_hidden(handled):
    """The block ends with an exception while the store is away: it is raised, with a note of the
    flush that failed. Without an exception, the failure is raised."""
    times = HandleTimes(final_flush=0.1, late_end=0.1)
    away = handled.directory / "away"
    with App(handled.path) as app:
        config = config_of(handled)
        replicator = SqliteReplicator(config, times=times, log=handled.log)
        with raises(NotDurable), replicator:
            replicator.flush(LONG)
            handled.bucket.rename(away)
            app.insert()
        app.insert()
        with pytest.raises(ZeroDivisionError) as caught, replicator:  # the sidecar has not ended
            raise ZeroDivisionError
        assert len(caught.value.__notes__) == 1
        assert replicator.status().state == "stopped"
        away.rename(handled.bucket)
        handled.wait_end()
        assert handled.copy().read_bytes() == app.image()


def test_a_signal_to_the_sidecar_waits_for_the_application(handled):
    """A supervisor sends SIGTERM to every process of a service, also twice: the sidecar ends after
    the application, with everything in the bucket."""
    with App(handled.path) as app:
        replicator = SqliteReplicator(config_of(handled))
        replicator.start()
        sidecar = sidecar_of(handled.path)
        for _ in range(3):
            os.kill(sidecar, signal.SIGTERM)
        app.insert()
        replicator.flush(LONG)
        app.insert()
        os.kill(sidecar, signal.SIGTERM)
        replicator.stop()
        assert sidecar_of(handled.path) is None
        assert replicator.status().last_error is None
        assert handled.copy().read_bytes() == app.image()


def test_a_start_fails_with_the_error_of_the_sidecar(handled):
    """The class and the values are those of a start in the same process; a process that has the
    lock and does not answer is waited for, then it is the error."""
    nowhere = handled.directory / "nowhere"
    replicator = SqliteReplicator(config_of(handled, db_path=nowhere / "app.db"))
    with raises(DatabaseMissing, code="directory_missing", path=str(nowhere / "app.db")):
        replicator.start()
    assert not nowhere.exists()
    times = HandleTimes(connect=ConnectTimes(patience=0.0))
    with DirLock(cache_of(handled.path)):
        replicator = SqliteReplicator(config_of(handled), times=times)
        with raises(AlreadyRunning, pid=os.getpid(), path=str(cache_of(handled.path))):
            replicator.start()
    assert replicator.status().state == "failed"


def test_a_restore_leaves_the_locks_of_the_application(handled):
    """The application has the database open: a restore that looks at the file drops no lock of it,
    and one that would replace the file is refused."""
    with App(handled.path) as app:
        app.insert()
        with SqliteReplicator(config_of(handled)) as replicator:
            replicator.flush(LONG)
            with raises(ReplicatorError, "still_started"):
                replicator.restore()
        app.run("BEGIN", "SELECT * FROM t")
        before = locks()
        progress = []
        options = {"url": f"file://{handled.bucket}", "prefix": "app.db", "output": handled.path}
        report = restore(if_missing=True, **options)
        assert (report.objects, report.output) == (0, str(handled.path))
        with pytest.raises(LocalIOError) as caught:
            restore(overwrite=True, progress=progress.append, **options)
        assert str(os.getpid()) in str(caught.value)
        assert locks() == before
        copy = {**options, "output": handled.directory / "new.db"}
        assert restore(if_missing=True, progress=progress.append, **copy).objects
        assert progress[-1].phase == "publish"


def locks():
    """The rows of /proc/locks that are of this process, without their numbers."""
    table = Path("/proc/locks").read_text().splitlines()
    return sorted(line.split(None, 1)[1] for line in table if f" {os.getpid()} " in line)
