"""The control socket: requests of commands, and their answers."""

import contextlib
import json
import os
import socket
import threading
from pathlib import Path

import pytest

from replicator.errors import (
    AlreadyRunning,
    ConfigError,
    NotDurable,
    NotRunning,
    ReplicatorError,
    from_dict,
)
from replicator.sidecar.control_client import ask, socket_path
from replicator.sidecar.control_server import ControlServer
from replicator.sidecar.kept import KeptConnection
from replicator.store.memory import MemoryStore
from tests.helpers.control import answering
from tests.helpers.errors import raises
from tests.helpers.replication import LONG, replicator_for


@pytest.fixture(params=["short", "long"])
def served(request, tmp_path, app):
    """A replicator and its control socket, also below a path longer than a socket's address."""
    cache = tmp_path / ("c" if request.param == "short" else "long-" * 30)
    replicator = replicator_for(app.path, MemoryStore(), cache_dir=cache)
    replicator.start()
    with answering(replicator.config.cache, replicator):
        yield replicator
    replicator.stop()


def test_every_request_has_its_answer(served, app):
    """status, flush, snapshot and metrics: the values that the library returns."""
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
    served._engine.uploader.end(NotDurable("not today", hint="tomorrow", code="late", txid=7))
    app.insert()
    with raises(NotDurable, "late", txid=7) as caught:
        ask(served.config.cache, {"command": "flush", "timeout": LONG})
    assert (caught.value.hint, caught.value.code) == ("tomorrow", "late")
    assert (caught.value.txid, caught.value.durable_txid) == (7, None)


def raw(cache, line):
    connection = socket.socket(socket.AF_UNIX)
    with contextlib.closing(connection):
        with socket_path(cache) as path:
            connection.connect(str(path))
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
def test_an_invalid_request_is_answered(served, line):
    """One line with the error, and the next request is served."""
    reply = json.loads(raw(served.config.cache, line))
    assert reply["error"] == ConfigError("the request is not understood").to_dict()
    with pytest.raises(ConfigError):
        ask(served.config.cache, {"command": "nonsense"})
    assert ask(served.config.cache, {"command": "status"})["running"]


def test_a_client_may_leave_early(served):
    """Before its request, or before its answer: the next request is served."""
    for line in (b"", b'{"command": "status"}\n'):
        connection = socket.socket(socket.AF_UNIX)
        with socket_path(served.config.cache) as path:
            connection.connect(str(path))
        connection.sendall(line)
        connection.close()
    assert ask(served.config.cache, {"command": "status"})["running"]


class FailingListener:
    """A listening socket whose first two accepts fail."""

    def __init__(self, listener):
        self._listener = listener
        self._errors = [BlockingIOError(), OSError("too many open files")]
        self.setblocking, self.fileno = listener.setblocking, listener.fileno

    def accept(self):
        if self._errors:
            raise self._errors.pop(0)
        return self._listener.accept()


def test_an_accept_that_failed_is_retried(tmp_path):
    """For want of descriptors, for example: the client is served later."""
    served = threading.Event()

    def answer(connection):
        connection.close()
        served.set()

    with (
        contextlib.closing(ControlServer(accept_retry=0)) as server,
        socket.socket(socket.AF_UNIX) as listener,
        socket.socket(socket.AF_UNIX) as client,
    ):
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        failing = FailingListener(listener)
        server.add(failing, answer)
        client.connect(str(tmp_path / "socket"))
        assert served.wait(LONG)
        server.remove(failing)


def test_the_end_does_not_wait_for_the_pause_after_a_failed_accept(tmp_path):
    """A process without descriptors ends like any other."""
    failed = threading.Event()

    class Failing(FailingListener):
        def accept(self):
            failed.set()
            raise OSError("too many open files")

    server = ControlServer(accept_retry=1e6)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        server.add(Failing(listener), lambda connection: None)
        client.connect(str(tmp_path / "socket"))
        assert failed.wait(LONG)
        server.close()


@pytest.mark.parametrize("name", ["empty", "stale", "missing", "missing-" * 20])
def test_no_sidecar_answers(tmp_path, name):
    """No directory, no socket, or a stale one: NotRunning with a hint, for any length of path."""
    for existing in ("empty", "stale"):
        (tmp_path / existing).mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "stale" / "control.sock"))
    with pytest.raises(NotRunning) as caught:
        ask(tmp_path / name, {"command": "status"})
    assert caught.value.path == str(tmp_path / name)
    assert "replicator run" in caught.value.hint


@pytest.mark.parametrize("request_", [{"command": "status"}, {"command": "flush", "timeout": 0.05}])
def test_a_sidecar_that_hangs(tmp_path, request_):
    """An answer that does not come in time is an error of its own: it runs, but it hangs."""
    hanging = socket.socket(socket.AF_UNIX)
    hanging.bind(str(tmp_path / "control.sock"))
    hanging.listen()
    with pytest.raises(ReplicatorError) as caught:
        ask(tmp_path, request_, answer_timeout=0.05)
    assert caught.value.code == "sidecar_hangs"
    with pytest.raises(ReplicatorError) as caught:
        KeptConnection(tmp_path, answer_timeout=0.05).ask({"timeout": 0.05, **request_})
    assert caught.value.code == "sidecar_hangs"
    hanging.close()


def test_a_connection_serves_several_requests(served, app):
    """One after another, and a request that is not understood is the last one."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
        with socket_path(served.config.cache) as path:
            connection.connect(str(path))
        answers = connection.makefile("rb")
        for _ in range(2):
            app.insert()
            connection.sendall(b'{"command": "flush", "timeout": 100}\n')
            txid = json.loads(answers.readline())["answer"]["txid"]
            assert txid == served.status().durable_txid
        connection.sendall(b'{"command": "status"}\n[]\n{"command": "status"}\n')
        assert json.loads(answers.readline())["answer"]["running"]
        assert json.loads(answers.readline())["error"]["code"] == "config"
        assert answers.readline() == b""


def test_the_end_of_a_socket_ends_its_connections(tmp_path, app):
    """A client that waits for its next request gets the end, and asks elsewhere."""
    replicator = replicator_for(app.path, MemoryStore())
    replicator.start()
    kept = KeptConnection(replicator.config.cache)
    with answering(replicator.config.cache, replicator):
        assert kept.ask({"command": "flush", "timeout": LONG})["txid"] == 1
    with pytest.raises(NotRunning):
        kept.ask({"command": "flush", "timeout": LONG})
    with answering(replicator.config.cache, replicator):
        assert kept.ask({"command": "flush", "timeout": LONG})["txid"] == 1
    kept.close()
    replicator.stop()


def test_a_request_about_another_file_is_refused(served, tmp_path):
    """A request that names its file is answered for that file only."""
    for path, accepted in ((served.config.database, True), (tmp_path, False)):
        facts = os.stat(path)
        request = {"command": "flush", "timeout": LONG, "file": [facts.st_dev, facts.st_ino]}
        if accepted:
            assert ask(served.config.cache, request)["txid"] == served.status().durable_txid
        else:
            with raises(ConfigError, "other_database"):
                ask(served.config.cache, request)


def test_an_unknown_error_is_still_an_error(tmp_path, app):
    """A class that the client does not know becomes the root of the tree."""

    class Odd(ReplicatorError):
        pass

    replicator = replicator_for(app.path, MemoryStore())
    replicator.start()

    def odd(*args, **options):
        raise Odd("odd", hint="even")

    replicator.flush = odd
    with answering(replicator.config.cache, replicator):
        with pytest.raises(ReplicatorError, match="odd") as caught:
            ask(replicator.config.cache, {"command": "flush"})
        assert type(caught.value) is ReplicatorError
    replicator.stop()


def test_a_socket_ends_with_its_owner(served):
    """A second one takes over the name; after its end no sidecar answers."""
    cache = served.config.cache
    with answering(cache, served):
        assert ask(cache, {"command": "status"})["running"]
    with pytest.raises(NotRunning):
        ask(cache, {"command": "status"})
    assert not Path(cache, "control.sock").exists()
    second = replicator_for(served.config.database, MemoryStore(), cache_dir=cache)
    with raises(AlreadyRunning, pid=os.getpid()):
        second.start()


ANSWERS = {
    "nothing": b"",
    "null": b"null\n",
    "list": b"[]\n",
    "an empty object": b"{}\n",
    "an error without text": b'{"error": []}\n',
    "an answer without fields": b'{"answer": {}}\n',
    "an answer of another type": b'{"answer": {"generation": [], "txid": 1}}\n',
    "deep nesting": b"[" * 100_000 + b"\n",
    "endless text": b'"' + b"x" * (2 << 20),
    "half a character": b'{"answer": {"generation": "\\ud800", "txid": 1}}\n',
    "a number without end": b'{"answer": {"generation": "g", "txid": ' + b"9" * 9000 + b"}}\n",
}


@pytest.mark.parametrize("name", ANSWERS)
def test_another_process_at_the_socket(tmp_path, name):
    """Whatever answers at the socket, the client raises an error of its own."""
    listener = socket.socket(socket.AF_UNIX)
    with socket_path(tmp_path) as path, contextlib.closing(listener):
        listener.bind(str(path))
        listener.listen()

        def answer():
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.makefile("rb").readline()
                connection.sendall(ANSWERS[name])

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ReplicatorError) as caught:
            ask(tmp_path, {"command": "flush", "timeout": LONG})
        thread.join()
    assert caught.value.code in {"not_running", "unknown_answer"}


def test_errors_of_another_process_keep_their_types(tmp_path):
    """Values of another type than an error has are left out."""
    error = from_dict({"kind": ["x"], "error": "odd", "hint": {}, "code": 7})
    assert (type(error), str(error), error.hint, error.code) == (
        ReplicatorError,
        "odd",
        "",
        "error",
    )
    error = from_dict({"kind": "GapError", "error": "gap", "restorable": ["a", 2]})
    assert error.to_dict()["kind"] == "GapError"
