"""The sidecar as a process: signals, exit codes, the child, the control socket."""

import contextlib
import json
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from replicator.archive.keys import Keys
from replicator.config.file import ConfigFile
from replicator.errors import AlreadyRunning, ConfigError, NotDurable, NotRunning, ReplicatorError
from replicator.sidecar import control, daemon, fleet
from replicator.sidecar.control import ControlSocket, ask
from replicator.sidecar.daemon import run_fleet, run_sidecar, set_up_logging
from replicator.store.directory import DirectoryStore
from replicator.store.memory import MemoryStore
from tests.helpers.replication import (
    LONG,
    App,
    config_for,
    image_of,
    replicator_for,
    restored,
    wait_for,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.db"


@pytest.fixture
def app(path):
    with App(path) as app:
        app.insert(5)
        yield app


@pytest.fixture
def bucket(tmp_path):
    (tmp_path / "bucket").mkdir()
    return tmp_path / "bucket"


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def start(path, bucket):
    """Starts sidecars as processes; what is left of them ends with the test."""
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
                f"file://{bucket}",
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


def cache_of(path):
    return path.with_name(f".{path.name}-replicator")


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


def test_sigterm_makes_everything_durable_and_ends_well(path, app, bucket, out, start):
    """Exit code 0 means: the bucket alone restores the last commit."""
    process = start()
    until_following(process, path)
    app.insert(7)
    image = app.image()
    process.send_signal(signal.SIGTERM)
    code, errors = finish(process)
    assert code == 0
    assert "everything up to txid" in errors
    assert restored(DirectoryStore(bucket), out)[1] == image
    assert not (cache_of(path) / "control.sock").exists()


def test_sigterm_without_the_store_says_how_much_is_missing(path, app, bucket, start, tmp_path):
    """The store is away: exit code 5 after a second signal, with figures; nothing is lost."""
    process = start()
    until_following(process, path)
    ask(cache_of(path), {"command": "flush", "timeout": LONG})
    bucket.rename(tmp_path / "away")
    app.insert(7)
    wait_for(lambda: answers(path)["pending_segments"] > 0)
    process.send_signal(signal.SIGTERM)
    wait_for(lambda: answers(path) is None)
    process.send_signal(signal.SIGTERM)
    code, errors = finish(process)
    assert code == 5
    assert "did not reach" in errors or "not everything" in errors
    assert "1 transactions, " in errors
    assert "in 1 segments wait in" in errors
    assert "bytes of committed log are not durable" in errors
    (tmp_path / "away").rename(bucket)
    second = start()
    until_following(second, path)
    second.send_signal(signal.SIGINT)
    assert finish(second)[0] == 0


def test_a_second_instance_is_refused(path, app, start):
    """Exit code 8, and the first one does not notice."""
    first = start()
    until_following(first, path)
    code, errors = finish(start())
    assert code == 8
    assert str(first.pid) in errors
    assert answers(path)["state"] == "following"


def test_killed_and_started_again_it_goes_on(path, app, bucket, out, start):
    """kill -9 leaves a stale socket and a free lock; the log goes on in its generation."""
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
    assert restored(DirectoryStore(bucket), out)[1] == app.image()


CHILD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("INSERT INTO t(body) VALUES (7)")
db.commit()
sys.exit(int(sys.argv[2]))
"""


@pytest.mark.parametrize("code", [0, 7])
def test_the_commands_own_exit_code_comes_through(path, app, bucket, out, start, code):
    """Around a command: what it wrote is durable, its code is ours."""
    process = start(sys.executable, "-c", CHILD, str(path), str(code))
    assert finish(process)[0] == code
    assert restored(DirectoryStore(bucket), out)[1] == image_of(path)
    assert app.db.execute("SELECT count(*) FROM t").fetchone() == (6,)


def test_a_missing_database_is_restored_for_the_command(path, bucket, out, start):
    """On a new machine, the command finds its database as the bucket has it."""
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
        assert restored(DirectoryStore(bucket), out)[1] == app.image()


def test_a_signal_goes_to_the_command(path, app, start):
    """SIGTERM ends the command, and the code tells by which signal."""
    ready = path.with_name("ready")
    process = start(
        sys.executable, "-c", f"import time; open({str(ready)!r}, 'w').close(); time.sleep(600)"
    )
    wait_for(ready.exists)
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 128 + signal.SIGTERM


def test_a_command_that_cannot_run_is_a_usage_error(path, app, start):
    """Exit code 2, the command's name, and no traceback."""
    code, errors = finish(start("/no/such/command"))
    assert code == 2
    assert "cannot run /no/such/command" in errors
    assert "Traceback" not in errors


def test_a_failure_while_the_command_runs_is_not_hidden(path, app, bucket, start):
    """The command ends with 0, but nothing is durable: the code says so."""
    bucket.rmdir()
    code, _ = finish(start(sys.executable, "-c", CHILD, str(path), "0"))
    assert code == 2


# ------------------------------------------------------------------------------- in process


@pytest.fixture
def quiet():
    """Logging as it was, whatever run_sidecar sets up."""
    logger = logging.getLogger("replicator")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


def in_thread(config, monkeypatch, run=run_sidecar, **options):
    """run_sidecar beside the test: signals are delivered by hand."""
    signals = []

    class Signals(daemon._Signals):
        def __enter__(self):
            signals.append(self)
            return self

        def __exit__(self, *exc):
            pass

    monkeypatch.setattr(daemon, "_Signals", Signals)
    result = []
    thread = threading.Thread(target=lambda: result.append(run(config, **options)))
    thread.start()
    wait_for(lambda: signals)
    return thread, signals[0], result


def test_the_last_flush_gives_up_when_its_time_is_over(
    path, app, bucket, monkeypatch, quiet, tmp_path
):
    """Without a second signal the last flush is bounded."""
    config = config_for(path, url=f"file://{bucket}", prefix="app.db")
    monkeypatch.setattr(daemon, "FINAL_FLUSH", 0.0)
    monkeypatch.setattr(daemon, "POLL", 0.05)
    thread, signals, result = in_thread(config, monkeypatch)
    wait_for(lambda: (answers(path) or {}).get("durable_txid"))
    bucket.rename(tmp_path / "away")
    app.insert()
    signals._handle(signal.SIGTERM, None)
    thread.join(LONG)
    assert result == [5]


def test_a_replicator_that_fails_ends_the_sidecar(path, app, bucket, monkeypatch, quiet):
    """Fenced or refused: no signal is needed, and the code is the error's."""
    config = config_for(path, url=f"file://{bucket}", prefix="app.db")
    thread, _, result = in_thread(config, monkeypatch, as_json=True)
    wait_for(lambda: (answers(path) or {}).get("durable_txid"))
    DirectoryStore(bucket).put(Keys("app.db").wal(2), b"somebody else's")
    app.insert()
    thread.join(LONG)
    assert result == [6]


def test_a_signal_before_the_child_is_known_reaches_it(app):
    """Between its start and its being known, a signal must not get lost."""
    signals = daemon._Signals()
    signals._handle(signal.SIGTERM, None)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with signals.forwarded_to(child):
        assert child.wait(LONG) == -signal.SIGTERM
    assert signals.received
    signals.rearm()
    assert not signals.received


def test_log_lines_are_json_when_asked_for(capsys, quiet):
    """One object a line, with time, level, logger and message."""
    set_up_logging(as_json=True)
    logging.getLogger("replicator.upload").warning("%s is away", "the store")
    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["logger"], line["message"]) == (
        "WARNING",
        "replicator.upload",
        "the store is away",
    )
    assert line["time_ms"] > 0
    thread = threading.Thread(
        target=logging.getLogger("replicator").info,
        args=("its own",),
        name="replicator-capture:shop/app.db",
    )
    thread.start()
    thread.join()
    assert json.loads(capsys.readouterr().err)["prefix"] == "shop/app.db"
    set_up_logging(as_json=False)
    logging.getLogger("replicator").info("hello")
    assert capsys.readouterr().err.endswith("INFO    hello\n")


def test_lines_of_many_databases_say_whose_they_are(capsys, quiet):
    """What a database's own threads log begins with its place; the rest stays as it is."""
    set_up_logging(as_json=False, many=True)
    logger = logging.getLogger("replicator.upload")
    thread = threading.Thread(
        target=logger.warning, args=("attempt %d failed", 1), name="replicator-upload:shop/app.db"
    )
    thread.start()
    thread.join()
    logger.info("all of them")
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("WARNING shop/app.db: attempt 1 failed")
    assert second.endswith("INFO    all of them")


@pytest.fixture
def many(tmp_path, path, app, bucket):
    """A file of two databases, one of which exists; its command line."""
    file = tmp_path / "many.toml"
    file.write_text(
        f'url = "file://{bucket}"\nsync_interval = 0\n[[database]]\npath = "app.db"\n'
        '[[database]]\npath = "none.db"\n'
    )
    return file


def test_a_sidecar_of_many_ends_with_the_code_of_the_first_that_is_late(
    many, path, app, bucket, monkeypatch, quiet, tmp_path
):
    """0 when all is durable; with the store away each that is late is named, by its error."""
    for away, wanted in ((False, 0), (True, 5)):
        monkeypatch.setattr(daemon, "FINAL_FLUSH", 0.0 if away else LONG)
        thread, signals, result = in_thread(ConfigFile.load(many, {}), monkeypatch, run_fleet)
        wait_for(lambda: (answers(path) or {}).get("durable_txid"))
        if away:
            bucket.rename(tmp_path / "away")
            app.insert()
        signals._handle(signal.SIGTERM, None)
        thread.join(LONG)
        assert result == [wanted]


def test_a_sidecar_of_many_around_a_command_ends_with_it(many, monkeypatch, quiet, out):
    """Its code is the command's own, and the command has the limits of files as they were."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1] - 1, limits[1]))
    try:
        thread, _, result = in_thread(
            ConfigFile.load(many, {}),
            monkeypatch,
            run_fleet,
            command=["sh", "-c", f"sleep 0.2; ulimit -Sn > {out}/limit; exit 7"],
        )
        thread.join(LONG)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert result == [7]
    assert (out / "limit").read_text().strip() == str(limits[1] - 1)


def test_a_sidecar_of_many_ends_when_nothing_is_left(many, path, bucket, monkeypatch, quiet):
    """Every database failed for good: no signal is needed."""
    many.write_text(many.read_text().rpartition("[[")[0])
    monkeypatch.setattr(fleet, "LOOK", 0.01)
    thread, _, result = in_thread(ConfigFile.load(many, {}), monkeypatch, run_fleet)
    wait_for(lambda: (answers(path) or {}).get("durable_txid"))
    DirectoryStore(bucket).put(Keys("app.db").wal(2), b"somebody else's")
    with App(path) as app:
        app.insert()
    thread.join(LONG)
    assert result == [6]


# --------------------------------------------------------------------------- control socket


@pytest.fixture(params=["short", "long"])
def served(request, tmp_path, app):
    """A replicator and its control socket, also below a path longer than a socket's address."""
    cache = tmp_path / ("c" if request.param == "short" else "long-" * 30)
    replicator = replicator_for(app.path, MemoryStore(), cache_dir=cache)
    replicator.start()
    with ControlSocket(replicator.config.cache, replicator):
        yield replicator
    replicator.stop()


def test_every_question_has_its_answer(served, app):
    """status, flush, snapshot and metrics, as the library says them."""
    cache = served.config.cache
    position = ask(cache, {"command": "flush", "timeout": LONG})
    assert position["txid"] == ask(cache, {"command": "status"})["durable_txid"]
    app.insert()
    position = ask(cache, {"command": "flush", "timeout": LONG, "snapshot": True})
    assert ask(cache, {"command": "snapshot", "timeout": LONG}) == {"txid": position["txid"]}
    figures = ask(cache, {"command": "metrics"})
    assert figures["snapshots"] == 2
    assert figures["durable_txid"] == position["txid"]
    assert set(ask(cache, {"command": "status"})) == set(served.status().__slots__)


def test_errors_come_back_as_what_they_are(served, app):
    """Class, message, hint, code and values cross the socket."""
    served._parts.uploader.die(NotDurable("not today", hint="tomorrow", code="late", txid=7))
    app.insert()
    with pytest.raises(NotDurable, match="not today") as caught:
        ask(served.config.cache, {"command": "flush", "timeout": LONG})
    assert (caught.value.hint, caught.value.code) == ("tomorrow", "late")
    assert (caught.value.txid, caught.value.durable_txid) == (7, None)


def raw(cache, line):
    connection = socket.socket(socket.AF_UNIX)
    with contextlib.closing(connection):
        with control._short_path(cache) as place:
            connection.connect(str(place / "control.sock"))
        connection.sendall(line)
        connection.shutdown(socket.SHUT_WR)
        return connection.makefile("rb").readline()


def repr_short(value):
    return repr(value)[:30]


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"what?\n",
        b"[]\n",
        b"{}\n",
        b'{"command": "stop"}\n',
        b'{"command": ["status"]}\n',
        b"\xff\xfe\n",
        b'"status"\n',
        b"null\n",
        b"",
        b'{"command": "flush", "timeout": "soon"}\n',
        b'{"command": "snapshot", "timeout": {}}\n',
        b'{"command": "flush", "timeout": true}\n',
        b"[" * 60_000 + b"\n",
    ],
    ids=repr_short,
)
def test_garbage_is_answered_and_harms_nobody(served, line):
    """Whatever is asked: one line saying that it is not understood, and the next is served."""
    reply = json.loads(raw(served.config.cache, line))
    assert reply["error"] == ConfigError("the request is not understood").to_dict()
    with pytest.raises(ConfigError, match="not understood"):
        ask(served.config.cache, {"command": "nonsense"})
    assert ask(served.config.cache, {"command": "status"})["running"]


def test_a_client_that_leaves_harms_nobody(served):
    """Connected and gone without a word, or without reading the answer."""
    for line in (b"", b'{"command": "status"}\n'):
        connection = socket.socket(socket.AF_UNIX)
        with control._short_path(served.config.cache) as place:
            connection.connect(str(place / "control.sock"))
        connection.sendall(line)
        connection.close()
    assert ask(served.config.cache, {"command": "status"})["running"]


class Odd:
    """A door at which the first visitors cannot be let in."""

    def __init__(self, door):
        self._door = door
        self._errors = [BlockingIOError(), OSError("too many open files")]
        self.setblocking, self.fileno = door.setblocking, door.fileno

    def accept(self):
        if self._errors:
            raise self._errors.pop(0)
        return self._door.accept()


def test_a_connection_that_cannot_be_had_is_asked_for_again(tmp_path, monkeypatch):
    """For want of descriptors, say: nobody is turned away for good."""
    monkeypatch.setattr(control, "REST", 0.0)
    met = threading.Event()
    reception = control.Reception()
    with socket.socket(socket.AF_UNIX) as door, socket.socket(socket.AF_UNIX) as visitor:
        door.bind(str(tmp_path / "door"))
        door.listen()
        odd = Odd(door)

        def answer(connection):
            connection.close()
            met.set()

        reception.open(odd, answer)
        visitor.connect(str(tmp_path / "door"))
        assert met.wait(LONG)
        reception.close(odd)
    reception.stop()


@pytest.mark.parametrize("name", ["there", "missing", "missing-" * 20])
def test_without_a_sidecar_that_is_the_answer(tmp_path, name):
    """No directory, no socket, or a stale one: NotRunning with a hint, for any length of path."""
    (tmp_path / "there").mkdir()
    for _ in range(2):
        with pytest.raises(NotRunning, match="no sidecar answers") as caught:
            ask(tmp_path / name, {"command": "status"})
        assert "replicator run" in caught.value.hint
        stale = socket.socket(socket.AF_UNIX)
        stale.bind(str(tmp_path / "there" / "control.sock")) if name == "there" else None
        stale.close()
        name = "missing"


def test_a_sidecar_that_hangs_is_not_waited_for(tmp_path, monkeypatch):
    """status is answered at once or not at all; then that is said."""
    monkeypatch.setattr(control, "ANSWER_TIMEOUT", 0.05)
    hanging = socket.socket(socket.AF_UNIX)
    hanging.bind(str(tmp_path / "control.sock"))
    hanging.listen()
    with pytest.raises(ReplicatorError, match="does not answer"):
        ask(tmp_path, {"command": "status"})
    hanging.close()


def test_an_unknown_error_is_still_an_error(tmp_path, app):
    """A class that the client does not know comes as the root of the tree."""

    class Odd(ReplicatorError):
        pass

    replicator = replicator_for(app.path, MemoryStore())
    replicator.start()

    def odd(*args, **options):
        raise Odd("odd", hint="even")

    replicator.flush = odd
    with ControlSocket(replicator.config.cache, replicator):
        with pytest.raises(ReplicatorError, match="odd") as caught:
            ask(replicator.config.cache, {"command": "flush"})
        assert type(caught.value) is ReplicatorError
    replicator.stop()


def test_the_socket_goes_with_its_owner(served):
    """A second one takes the name over; after the end nobody answers."""
    cache = served.config.cache
    with ControlSocket(cache, served):
        assert ask(cache, {"command": "status"})["running"]
    with pytest.raises(NotRunning):
        ask(cache, {"command": "status"})
    assert not Path(cache, "control.sock").exists()
    second = replicator_for(served.config.database, MemoryStore(), cache_dir=cache)
    with pytest.raises(AlreadyRunning, match=str(os.getpid())):
        second.start()
