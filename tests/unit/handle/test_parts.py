"""The parts of a handle that start no process."""

import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from replicator import SqliteReplicator, SqliteReplicatorConfig
from replicator.errors import Cancelled, ConfigError, NotRunning, ReplicatorError
from replicator.handle import restoring
from replicator.handle.bell import Bell
from replicator.handle.connect import turn
from replicator.handle.figures import SidecarMetrics
from replicator.handle.interpreter import interpreter, standard_error
from replicator.handle.lease import Lease
from replicator.handle.spawn import settings_of
from replicator.handle.supervisor import Supervisor, SupervisorTimes
from replicator.metrics import FIGURES
from tests.helpers.errors import raises
from tests.helpers.replication import LONG, App, wait_for

QUICK = SupervisorTimes(pause=0.001, longest_pause=0.001, stranger=0.01)


@pytest.fixture
def bell():
    """A bell that did not ring."""
    bell = Bell()
    yield bell
    bell.close()


# -------------------------------------------------------------------------------- waiting


def test_a_bell_ends_every_wait(bell):
    """A wait ends with its descriptor, with its time, or with the bell, which rings on."""
    ours, theirs = socket.socketpair()
    with ours:
        assert not bell.wait(0.0, ours.fileno())
        theirs.close()
        assert bell.wait(None, ours.fileno())
    waiting = threading.Timer(0.0, bell.ring)
    waiting.start()
    for _ in range(2):
        with pytest.raises(Cancelled):
            bell.wait(LONG)
    waiting.join()


def test_one_process_has_the_turn(tmp_path):
    """Of those that start a sidecar with one cache at the same time, one has the turn; another
    cache has its own."""
    one = SqliteReplicatorConfig(db_path=tmp_path / "a.db", url="file:///")
    two = SqliteReplicatorConfig(db_path=tmp_path / "b.db", url="file:///")
    with turn(one) as first, turn(one) as second, turn(two) as other:
        assert (first, second, other) == (True, False, True)
    with turn(one) as again:
        assert again


# --------------------------------------------------------------------------- the process


def test_the_interpreter_is_a_python(tmp_path):
    """A server that embeds Python is not taken for one; the Python of the same prefix is."""
    server = tmp_path / "uwsgi"
    server.write_text("")
    server.chmod(0o755)
    assert interpreter(sys.executable) == sys.executable
    assert os.path.basename(interpreter(str(server))).startswith("python")
    assert interpreter("").startswith(sys.prefix)


def test_standard_error_is_no_database(path):
    """The descriptor of standard error can be that of the database, in a server that closed it;
    a log would destroy it."""
    app = App(path)
    kept = os.dup(2)
    try:
        assert standard_error(path) == 2
        for name in (path, f"{path}-wal"):
            file = os.open(name, os.O_RDWR)
            os.dup2(file, 2)
            os.close(file)
            assert standard_error(path) is None
        os.close(2)
        assert standard_error(path) is None
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        app.db.close()


def test_settings_travel_with_absolute_paths(tmp_path, monkeypatch):
    """The settings that another process reads give the same config in another directory."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    config = SqliteReplicatorConfig(
        db_path="app.db", bucket="b", drill_scratch="scratch", keep_hourly=float("inf")
    )
    values = settings_of(config)
    assert values["drill_scratch"] == str(tmp_path / "scratch")
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = SqliteReplicatorConfig(**values)
    assert (again.source, again.cache, again.address) == (
        config.source,
        config.cache,
        config.address,
    )
    assert again.keep_hourly == config.keep_hourly


def test_no_program_inherits_a_lease():
    """A program that the application starts gets neither the connection nor the process."""
    before = inherited()
    ours, theirs = socket.socketpair()
    lease = Lease(ours, os.getpid(), hosted=True)
    assert inherited() == before
    lease.close()
    theirs.close()


def inherited():
    """The descriptors that stay open at an exec."""
    done = subprocess.run(
        ["ls", "/proc/self/fd"], capture_output=True, text=True, check=True, close_fds=False
    )
    return done.stdout


# ---------------------------------------------------------------------------- supervision


def leased(*, hosted=True):
    """(lease, the end of the sidecar); the process is unknown."""
    ours, theirs = socket.socketpair()
    return Lease(ours, 0, hosted=hosted), theirs


def test_the_supervisor_gets_another_lease():
    """The sidecar ends: the next one is asked for until it comes, errors are kept meanwhile, and
    who waits for the lease gets it."""
    first, end = leased()
    second, kept = leased()
    outcomes = [NotRunning("not yet"), ValueError("bug"), second]

    def connect(bell):
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    supervisor = Supervisor(first, connect, connect, QUICK)
    assert supervisor.wait_lease(0.0) is first
    end.close()
    assert supervisor.wait_lease(time.monotonic() + LONG) is second
    assert supervisor.error is None
    assert supervisor.stop(LONG) is second
    second.close()
    kept.close()


def test_an_independent_sidecar_gets_time_to_come_back():
    """A sidecar that no application started is attached to again; only later another is started."""
    first, end = leased(hosted=False)
    second, kept = leased()
    asked = []

    def attach(bell):
        asked.append("attach")

    def connect(bell):
        asked.append("connect")
        return second

    supervisor = Supervisor(first, connect, attach, QUICK)
    end.close()
    assert supervisor.wait_lease(time.monotonic() + LONG) is second
    assert asked[0] == "attach"
    assert asked[-1] == "connect"
    supervisor.stop(LONG)
    second.close()
    kept.close()


def test_a_stop_ends_the_search_for_a_sidecar():
    """The handle stops while no sidecar can be started: it does not wait, and requests get the
    reason."""
    first, end = leased()

    def connect(bell):
        raise ReplicatorError("no store")

    supervisor = Supervisor(first, connect, connect, QUICK)
    end.close()
    wait_for(lambda: str(supervisor.error) == "no store")
    with pytest.raises(ReplicatorError, match="no store"):
        supervisor.wait_lease(0.0)
    assert supervisor.stop(LONG) is None


# -------------------------------------------------------------------------------- figures


def test_metrics_stay_after_the_end():
    """The last figures stay when no sidecar answers; they have the text form of Prometheus."""
    answers = [{"txid": 7.0}, None]
    metrics = SidecarMetrics(lambda: answers.pop(0))
    figures = metrics.snapshot()
    assert figures["txid"] == 7
    assert {figure.name for figure in FIGURES} == figures.keys()
    assert 'replicator_txid{database="a"} 7\n' in metrics.render({"database": "a"})


def test_a_handle_that_was_not_started_says_so(tmp_path):
    """Requests are refused; status and metrics have their first values; stop does nothing."""
    replicator = SqliteReplicator(SqliteReplicatorConfig(db_path=tmp_path / "a.db", url="file:///"))
    for request in (replicator.flush, replicator.snapshot, replicator.repair):
        with pytest.raises(ReplicatorError):
            request(1.0)
    assert (replicator.status().state, replicator.failed) == ("stopped", None)
    assert replicator.metrics.snapshot()["txid"] == 0
    replicator.stop()


# -------------------------------------------------------------------------------- restore


def test_arguments_that_cannot_leave_the_process_are_refused(tmp_path):
    """A restore that looks at an existing file runs in another process, which imports `prepare`."""
    with raises(ConfigError, setting="prepare"):
        restoring.restore(url="file:///", overwrite=True, prepare=lambda connection: None)
