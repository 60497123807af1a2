"""Signals of whole processes: a sidecar, a sidecar around a command, and other commands."""

import os
import shutil
import signal
import subprocess
import sys

import pytest

from tests.helpers.command_line import cache_of
from tests.helpers.proxy import delay, drip
from tests.helpers.replication import LONG, App, wait_for

ENDING = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT]
NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]

# A server: notes each signal, and ends with 3 after one of those that end servers.
SERVER = """
import signal, sys, time
names = {n.name: n for n in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)}
others = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

def note(number, frame):
    print(signal.Signals(number).name, file=log, flush=True)
    if number in names.values():
        sys.exit(3)

log = open(sys.argv[1], "a")
for number in (*names.values(), *others):
    signal.signal(number, note)
print("ready", file=log, flush=True)
while True:
    time.sleep(0.02)  # a signal right before pause(2) would wait for the next one
"""

WRITER = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
while True:
    db.execute("INSERT INTO t(body) VALUES (1)")
    print(file=open(sys.argv[2], "a"))
    time.sleep(0.01)
"""


def restored(cli):
    copy = cli.home / "copy.db"
    done = cli.call("restore", *cli.bucket_options, "--output", copy)
    assert done.code == 0, done.err
    return copy.read_bytes()


@pytest.mark.parametrize("number", ENDING, ids=lambda number: number.name)
def test_a_signal_ends_a_sidecar_with_everything_durable(cli, path, number):
    """Each signal by which a service manager, a terminal or its end ends a server."""
    with App(path) as app:
        sidecar = cli.sidecar(path)
        sidecar.until_following()
        app.insert(5)
        image = app.image()
        sidecar.signal(signal.SIGUSR1)
        sidecar.signal(number)
        assert sidecar.wait() == 0
    sidecar.until_written(f"{number.name}: uploading what is left")
    assert restored(cli) == image


def test_the_command_gets_the_signals_of_servers(cli, path):
    """Reload, reopen, upgrade: the sidecar stays, and the command ends last of all."""
    log = cli.home / "log"
    with App(path) as app:
        sidecar = cli.sidecar(path, command=(sys.executable, "-c", SERVER, log))
        wait_for(lambda: log.exists() and "ready" in log.read_text())
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            sidecar.signal(number)
            wait_for(lambda n=number: n.name in log.read_text())
        app.insert(5)
        image = app.image()
        sidecar.signal(signal.SIGQUIT)
        assert sidecar.wait() == 3
    assert log.read_text().split() == ["ready", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGQUIT"]
    assert restored(cli) == image


def test_a_second_signal_waits_for_no_request(cli, fault_proxy, path):
    """The store hangs: the end reports the amount that is missing, and joins no thread."""

    async def hang(exchange):
        hung.append(exchange.path)
        await exchange.reader.read()

    hung = []
    with App(path) as app:
        options = cli.options_through(fault_proxy.url)
        sidecar = cli.sidecar(path, bucket_options=options)
        sidecar.until_following()
        fault_proxy.fault(hang, times=None)
        app.insert(5)
        wait_for(lambda: hung)
        sidecar.signal()
        wait_for(lambda: "a second signal ends at once" in sidecar.output)
        sidecar.signal()
        assert sidecar.wait() == 5
    sidecar.until_written("are not durable")


def test_the_last_flush_has_an_end_under_load(cli, fault_proxy, path):
    """The store answers late, and another process commits all the time: everything of before the
    signal is durable, and the end does not wait for what is committed since."""
    log = cli.home / "log"
    with App(path) as app:
        options = cli.options_through(fault_proxy.url)
        sidecar = cli.sidecar(path, "--sync-interval", "20ms", bucket_options=options)
        sidecar.until_following()
        writer = subprocess.Popen([sys.executable, "-c", WRITER, path, log])
        try:
            fault_proxy.fault(delay(0.5), times=None)
            wait_for(lambda: log.exists() and log.read_text().count("\n") > 20)
            app.insert(7)
            assert sidecar.stop() == 0
        finally:
            writer.kill()
            writer.wait()
    assert cli.call("restore", *cli.bucket_options, "--output", cli.home / "copy.db").code == 0
    with App(cli.home / "copy.db") as copy:
        assert copy.db.execute("SELECT count(*) FROM t WHERE body != 1").fetchone() == (7,)


def test_the_reader_of_the_log_may_stop(cli, path):
    """A terminal under Ctrl-S, a stopped log collector: neither replication nor its end waits."""
    arguments = [sys.executable, "-m", "replicator", "run", path, *cli.bucket_options]
    with App(path) as app:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        try:
            while True:  # until the pipe is full
                os.write(writer, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(writer, True)
        process = subprocess.Popen(
            [*map(str, arguments)], stderr=writer, env=cli.environment, stdin=subprocess.DEVNULL
        )
        os.close(writer)
        app.insert(5)
        wait_for(lambda: cli.call("flush", path).code == 0)
        process.terminate()
        assert process.wait(LONG) == 0
        os.close(reader)


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run([*NAMESPACE, "true"], check=False, stderr=subprocess.DEVNULL).returncode != 0,
    reason="needs the right to make a PID namespace; tests/unit/system/test_pid_one.py does not",
)
@pytest.mark.parametrize("command", [False, True], ids=["alone", "around a command"])
def test_as_the_first_process_of_a_container(cli, path, command):
    """SIGTERM is not lost, not even the earliest one, and every commit is durable."""
    log = cli.home / "log"
    server = ["--", sys.executable, "-c", SERVER, log] if command else []
    arguments = [sys.executable, "-m", "replicator", "run", path, *cli.bucket_options, *server]
    with App(path) as app:
        app.insert(5)
        image = app.image()
        process = subprocess.Popen(
            [*NAMESPACE, *map(str, arguments)], env=cli.environment, stdin=subprocess.DEVNULL
        )

        def first():
            with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
                return file.read().split()

        wait_for(first)
        (pid,) = map(int, first())
        wait_for(
            lambda: (
                log.exists() and "ready" in log.read_text()
                if command
                else (cache_of(path) / "control.sock").exists()
            )
        )
        os.kill(pid, signal.SIGTERM)
        assert process.wait(LONG) == (3 if command else 0)
    assert restored(cli) == image


def test_a_command_that_is_ended_removes_its_files(cli, path, tmp_path):
    """A drill restores to the temporary directory; a signal leaves nothing there."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with App(path) as app:
        app.insert(20)
        sidecar = cli.sidecar(path)
        sidecar.until_following()
        assert sidecar.stop() == 0
    for number in (signal.SIGTERM, signal.SIGHUP):
        started = tmp_path / f"started-{number.name}"
        command = ["sh", "-c", f"touch {started}; exec sleep 1000"]
        process = subprocess.Popen(
            [sys.executable, "-m", "replicator", "open", *cli.bucket_options, "--", *command],
            env=cli.environment | {"TMPDIR": str(temporary)},
            stdin=subprocess.DEVNULL,
        )
        wait_for(started.exists)
        assert list(temporary.iterdir())
        process.send_signal(number)
        assert process.wait(LONG) == 128 + number
        assert list(temporary.iterdir()) == []


def test_a_command_ends_while_the_store_does_not(cli, fault_proxy):
    """The answer of the store has no end: the command leaves the thread that reads it."""
    asked = []

    async def fault(exchange):
        asked.append(exchange.path)
        return await drip(exchange)

    fault_proxy.fault(fault, times=None)
    process = subprocess.Popen(
        [sys.executable, "-m", "replicator", "drill", *cli.options_through(fault_proxy.url)],
        env=cli.environment,
        stdin=subprocess.DEVNULL,
    )
    wait_for(lambda: asked)
    process.terminate()
    assert process.wait(LONG) == 128 + signal.SIGTERM


INTERRUPTED = """
import os, signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "replicator.cli":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
from replicator.__main__ import main
sys.argv = ["replicator", "history"]
main()
"""


def test_an_interrupt_while_a_command_loads_is_no_traceback():
    """Ctrl-C in the first second of a command."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (128 + signal.SIGINT, "")


# The same in a finalizer, whose exceptions Python prints and ignores; this holds for the callbacks
# of imports, too.
FINALIZED = INTERRUPTED.replace("os.kill(os.getpid(), signal.SIGINT)", "Finalized()").replace(
    "class Interrupt:",
    """class Finalized:
    def __del__(self):
        os.kill(os.getpid(), number)
        for _ in range(1000):
            pass
number = int(sys.argv[1])
class Interrupt:""",
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_in_a_finalizer_ends_a_command(number):
    """It is neither lost nor a traceback."""
    done = subprocess.run(
        [sys.executable, "-c", FINALIZED, str(int(number))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (128 + number, "")
