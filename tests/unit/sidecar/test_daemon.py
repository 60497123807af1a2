"""The sidecar as a process: signals, exit codes, the command, one database and several."""

import contextlib
import resource
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from replicator.archive.keys import Keys
from replicator.config.file import ConfigFile
from replicator.errors import NotRunning
from replicator.sidecar.control_client import ask
from replicator.sidecar.daemon import run_sidecar
from replicator.sidecar.fleet import Databases, SidecarTimes
from replicator.sidecar.signals import Arrival, Signals
from replicator.store.directory import DirectoryStore
from tests.helpers.command_line import cache_of
from tests.helpers.replication import LONG, App, config_for, image_of, restored, wait_for

pytestmark = pytest.mark.app(rows=5)

QUICK = SidecarTimes(final_flush=LONG, poll=0.05, check=0.01)


@pytest.fixture
def start(path, bucket_dir):
    """Starts sidecars as processes; those that still run end with the test."""
    running = []

    def start(*command, options=()):
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "replicator",
                "run",
                str(path),
                "--url",
                f"file://{bucket_dir}",
                "--sync-interval",
                "0s",
                *options,
                *(["--", *command] if command else []),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def answers(path):
    """The sidecar's status, None while it has none."""
    try:
        return ask(cache_of(path), {"command": "status"})
    except NotRunning:
        return None


def until_following(process, path):
    def ready():
        assert process.poll() is None, process.stderr.read()
        status = answers(path)
        return status is not None and status["state"] == "following"

    wait_for(ready)


def finish(process):
    _, errors = process.communicate(timeout=LONG)
    return process.returncode, errors


# -------------------------------------------------------------------------------- processes


def test_sigterm_makes_everything_durable(path, app, bucket_dir, out, start):
    """Exit code 0 means: the bucket alone restores the last commit."""
    process = start()
    until_following(process, path)
    app.insert(7)
    image = app.image()
    process.send_signal(signal.SIGTERM)
    code, errors = finish(process)
    assert code == 0
    assert "everything up to txid" in errors
    assert restored(DirectoryStore(bucket_dir), out)[1] == image
    assert not (cache_of(path) / "control.sock").exists()


def test_sigterm_without_the_store_reports_how_much_is_missing(
    path, app, bucket_dir, start, tmp_path
):
    """The store is away: exit code 5 after a second signal, with figures; nothing is lost. Until
    then the control socket answers."""
    process = start()
    until_following(process, path)
    ask(cache_of(path), {"command": "flush", "timeout": LONG})
    bucket_dir.rename(tmp_path / "away")
    app.insert(7)
    wait_for(lambda: answers(path)["pending_segments"] > 0)
    process.send_signal(signal.SIGTERM)
    lines = iter(process.stderr.readline, "")
    assert next(line for line in lines if "a second signal ends at once" in line)
    assert answers(path)["pending_segments"] == 1
    process.send_signal(signal.SIGTERM)
    code, errors = finish(process)
    assert code == 5
    assert "; 1 transactions, " in errors
    assert "in 1 segments wait in" in errors
    assert "bytes of committed WAL are not durable" in errors
    (tmp_path / "away").rename(bucket_dir)
    second = start()
    until_following(second, path)
    second.send_signal(signal.SIGINT)
    assert finish(second)[0] == 0


def test_a_second_instance_is_refused(path, app, start):
    """Exit code 8, with the process id of the first one, which is not disturbed; also around a
    command, if standby is off."""
    first = start()
    until_following(first, path)
    for second in (start(), start("false", options=["--no-standby"])):
        code, errors = finish(second)
        assert code == 8
        assert str(first.pid) in errors
        assert "--standby" in errors
    assert answers(path)["state"] == "following"


def test_a_restart_after_a_kill_continues(path, app, bucket_dir, out, start):
    """kill -9 leaves a stale socket and a free lock; the generation continues."""
    first = start()
    until_following(first, path)
    before = ask(cache_of(path), {"command": "flush", "timeout": LONG})
    first.kill()
    finish(first)
    app.insert(3)
    second = start()
    until_following(second, path)
    after = ask(cache_of(path), {"command": "flush", "timeout": LONG})
    assert (after["generation"], after["txid"]) == (before["generation"], before["txid"] + 1)
    assert restored(DirectoryStore(bucket_dir), out)[1] == app.image()


CHILD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("INSERT INTO t(body) VALUES (7)")
db.commit()
sys.exit(int(sys.argv[2]))
"""


@pytest.mark.parametrize("code", [0, 7])
def test_the_exit_code_is_that_of_the_command(path, app, bucket_dir, out, start, code):
    """And its commits are durable."""
    process = start(sys.executable, "-c", CHILD, str(path), str(code))
    assert finish(process)[0] == code
    assert restored(DirectoryStore(bucket_dir), out)[1] == image_of(path)
    assert app.db.execute("SELECT count(*) FROM t").fetchone() == (6,)


def test_a_missing_database_is_restored_for_the_command(path, bucket_dir, out, start):
    """On a new machine, the command starts with the newest state in the bucket."""
    with App(path) as app:
        app.insert(5)
        first = start()
        until_following(first, path)
        first.send_signal(signal.SIGTERM)
        assert finish(first)[0] == 0
    for file in path.parent.glob("app.db*"):
        file.unlink()
    process = start(sys.executable, "-c", CHILD, str(path), "0")
    code, errors = finish(process)
    assert code == 0, errors
    assert "restored" in errors
    with App(path) as app:
        assert app.db.execute("SELECT count(*) FROM t").fetchone() == (6,)
        assert restored(DirectoryStore(bucket_dir), out)[1] == app.image()


def test_a_signal_goes_to_the_command(path, app, start):
    """SIGTERM ends the command, and the exit code names the signal."""
    ready = path.with_name("ready")
    process = start(
        sys.executable, "-c", f"import time; open({str(ready)!r}, 'w').close(); time.sleep(600)"
    )
    wait_for(ready.exists)
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 128 + signal.SIGTERM


def test_a_command_that_cannot_run_is_a_usage_error(path, app, start):
    """Exit code 2, with the name of the command and without a traceback."""
    code, errors = finish(start("/no/such/command"))
    assert code == 2
    assert "cannot run /no/such/command" in errors
    assert "Traceback" not in errors


def test_a_failure_while_the_command_runs(path, app, bucket_dir, start):
    """The command ends with 0, but nothing is durable: the exit code is that of the failure."""
    bucket_dir.rmdir()
    code, _ = finish(start(sys.executable, "-c", CHILD, str(path), "0"))
    assert code == 2


# ------------------------------------------------------------------------------- in process


class HandSignals(Signals):
    """Signals that a test delivers by hand: a test holds no signals of its own process."""

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass

    def run(self, command, started, *_):
        child = subprocess.Popen(command)
        started(child.pid)
        return child.wait()


def in_thread(databases, *, command=None, times=QUICK):
    """A sidecar in a thread; the thread, its signals, and a list for its exit code."""
    signals, result = HandSignals(), []

    def run():
        result.append(run_sidecar(databases, command, signals=signals, times=times))

    thread = threading.Thread(target=run)
    thread.start()
    return thread, signals, result


@pytest.fixture
def single(path, app, bucket_dir):
    """The settings of a sidecar for one database."""
    return Databases.single(config_for(path, url=f"file://{bucket_dir}", prefix="app.db"))


def until_durable(path):
    wait_for(lambda: (answers(path) or {}).get("durable_txid"))


def take_over_next_txid(bucket, path):
    """Another writer creates the next object of the archive; a commit then meets it."""
    DirectoryStore(bucket).put(Keys("app.db").wal(2), b"another writer's")
    with App(path) as app:
        app.insert()


def test_the_last_flush_ends_after_its_time(single, path, app, bucket_dir, tmp_path):
    """Without a second signal the last flush is bounded."""
    thread, signals, result = in_thread(single, times=replace(QUICK, final_flush=0))
    until_durable(path)
    bucket_dir.rename(tmp_path / "away")
    app.insert()
    signals.deliver(Arrival(signal.SIGTERM))
    thread.join(LONG)
    assert result == [5]


def test_a_replicator_that_fails_ends_the_sidecar(single, path, bucket_dir):
    """Fenced or refused: no signal is needed, and the exit code is that of the error."""
    thread, _, result = in_thread(single)
    until_durable(path)
    take_over_next_txid(bucket_dir, path)
    thread.join(LONG)
    assert result == [6]


def test_a_signal_before_the_command_starts_none(single, path, out):
    """A container that is stopped while the sidecar starts ends with 128 + N, and nothing ran."""
    databases, signals = single, HandSignals()
    signals.deliver(Arrival(signal.SIGTERM))
    signals.ending_at_once = contextlib.nullcontext  # it arrives after the restore
    assert signals.wait(LONG)
    command = ["touch", f"{out}/ran"]
    assert run_sidecar(databases, command, signals=signals, times=QUICK) == 128 + signal.SIGTERM
    assert not (out / "ran").exists()


def test_a_signal_that_no_wait_has_received_starts_none(single, out):
    """It arrived after the last wait of the start."""
    signals = HandSignals()
    signals.ending_at_once = contextlib.nullcontext
    signals.wait = threading.Event().wait  # receives none
    signals.deliver(Arrival(signal.SIGHUP))
    command = ["touch", f"{out}/ran"]
    assert run_sidecar(single, command, signals=signals, times=QUICK) == 128 + signal.SIGHUP
    assert not (out / "ran").exists()


@pytest.fixture
def several(tmp_path, path, app, bucket_dir):
    """A file of two databases, one of which exists."""
    file = tmp_path / "several.toml"
    file.write_text(
        f'url = "file://{bucket_dir}"\nsync_interval = 0\n[[database]]\npath = "app.db"\n'
        '[[database]]\npath = "none.db"\n'
    )
    return file


def test_a_sidecar_of_several_ends_with_the_code_of_the_first_that_is_late(
    several, path, app, bucket_dir, tmp_path
):
    """2 while a database is missing; 0 when all is durable; 5 with the store away."""
    missing = path.with_name("none.db")
    for away, code in ((False, 2), (False, 0), (True, 5)):
        times = replace(QUICK, final_flush=0) if away else QUICK
        databases = Databases.in_file(ConfigFile.load(several, {}))
        thread, signals, result = in_thread(databases, times=times)
        until_durable(path)
        if missing.exists():
            until_durable(missing)
        if away:
            bucket_dir.rename(tmp_path / "away")
            app.insert()
        signals.deliver(Arrival(signal.SIGTERM))
        thread.join(LONG)
        assert result == [code]
        with App(missing):
            pass


def test_a_sidecar_of_several_around_a_command(several, out):
    """The exit code is that of the command, which has the limits of files as they were."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1] - 1, limits[1]))
    try:
        thread, _, result = in_thread(
            Databases.in_file(ConfigFile.load(several, {})),
            command=["sh", "-c", f"sleep 0.2; ulimit -Sn > {out}/limit; exit 7"],
        )
        thread.join(LONG)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert result == [7]
    assert (out / "limit").read_text().strip() == str(limits[1] - 1)


def test_a_sidecar_of_several_ends_when_all_have_failed(several, path, bucket_dir):
    """No signal is needed."""
    several.write_text(several.read_text().rpartition("[[")[0])
    thread, _, result = in_thread(Databases.in_file(ConfigFile.load(several, {})))
    until_durable(path)
    take_over_next_txid(bucket_dir, path)
    thread.join(LONG)
    assert result == [6]
