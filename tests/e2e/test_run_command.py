"""`replicator run DB -- CMD`: the command gets its database, and its end ends the sidecar."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.helpers.command_line import cache_of
from tests.helpers.replication import App, image_of, wait_for

WRITE = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("PRAGMA journal_mode=WAL")
db.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, body BLOB)")
db.execute("INSERT INTO t(body) VALUES ('by the command')")
db.commit()
print(db.execute("SELECT count(*) FROM t").fetchone()[0], file=open(sys.argv[2], "w"))
sys.exit(int(sys.argv[3]))
"""
# Commits until SIGTERM, and ten times more after it; opens its first argument for the first commit.
WRITES_ON = """
import signal, sqlite3, sys
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode=WAL")
db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY)")
open(sys.argv[2], "w").write("started\\n")
while len(ended) < 10:
    db.execute("INSERT INTO t DEFAULT VALUES")
    ended += ended[:1]
"""
SLEEP = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"
OBEY = """
import pathlib, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
pathlib.Path(sys.argv[1]).touch()
signal.pause()
"""


@pytest.fixture
def note(cli):
    """A file that the command writes."""
    return cli.home / "note"


def run_command(cli, path, *command):
    return cli.call("run", path, *cli.bucket_options, "--", *command)


def write(path, note, code=0):
    return (sys.executable, "-c", WRITE, str(path), str(note), str(code))


@pytest.mark.parametrize("code", [0, 7])
def test_the_last_commit_of_the_command_is_in_the_bucket(cli, path, note, code):
    """The sidecar ends with the command's exit code, after all its commits are durable."""
    done = run_command(cli, path, *write(path, note, code))
    assert done.code == code, done.err
    assert f"is in s3://{cli.bucket}/app.db" in done.err
    assert cli.call("restore", *cli.bucket_options, "-o", "copy.db").code == 0
    assert (cli.home / "copy.db").read_bytes() == image_of(path)


def test_a_missing_database_is_restored_first(cli, path, note):
    """On a new machine with only the bucket, the command continues with its data, and the archive
    continues without a new generation or snapshot, although the command writes at once."""
    assert run_command(cli, path, *write(path, note)).code == 0
    image = image_of(path)
    for file in (path, *path.parent.glob("app.db-*")):
        file.unlink()
    cache_of(path).rename(cli.home / "lost cache")
    done = run_command(cli, path, *write(path, note))
    assert done.code == 0
    assert f"restored {path} to txid" in done.err
    assert "database checksum" in done.err
    assert note.read_text().strip() == "2"
    assert image_of(path) != image
    (history,) = cli.call("history", *cli.bucket_options, "--json").json
    assert len(history["generations"]) == len(history["snapshots"]) == 1, done.err


def test_an_existing_database_is_left_alone(cli, path, note):
    """A sidecar restores nothing over an existing database."""
    with App(path) as app:
        app.insert(4)
    done = run_command(cli, path, *write(path, note))
    assert done.code == 0
    assert "restored" not in done.err
    assert note.read_text().strip() == "5"


def test_a_command_that_is_killed(cli, path, note):
    """The exit code is 128 + signal, as in a shell."""
    done = run_command(
        cli, path, sys.executable, "-c", f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})"
    )
    assert done.code == 128 + signal.SIGKILL


@pytest.mark.parametrize("code", [0, 9], ids=["left a server", "died"])
def test_a_process_that_the_command_left_behind_writes_on(cli, path, note, code):
    """A server whose master died, or that became a daemon: each of its commits is in the bucket
    when the sidecar has ended. After a failure SIGTERM ends the orphans, else they may stay."""
    leave = f'"{sys.executable}" -c "$0" "{path}" "{note}" & read started < "{note}"; exit {code}'
    os.mkfifo(note)
    sidecar = cli.sidecar(path, command=("sh", "-c", leave, WRITES_ON))
    if code == 0:
        sidecar.until(lambda status: status["txid"] > 20)
        sidecar.signal()
    assert sidecar.wait() == code
    sidecar.until_written("left the processes")
    image = image_of(path)
    assert cli.call("restore", *cli.bucket_options, "-o", "copy.db").code == 0
    assert (cli.home / "copy.db").read_bytes() == image


def test_a_command_that_does_not_exist(cli, path):
    """The exit code is 2, and the message names the program."""
    done = run_command(cli, path, "no-such-program")
    assert done.code == 2
    assert "cannot run no-such-program" in done.err


@pytest.mark.parametrize(
    ("program", "code"), [(SLEEP, 128 + signal.SIGTERM), (OBEY, 3)], ids=["dies of it", "obeys"]
)
def test_sigterm_goes_to_the_command(cli, path, note, program, code):
    """SIGTERM is passed to the command; after its end and a last flush the sidecar ends with its
    exit code."""
    with App(path) as app:
        app.insert(3)
        sidecar = cli.sidecar(path, command=(sys.executable, "-c", program, str(note)))
        wait_for(note.exists)
        sidecar.until_following()
        app.insert(3)
        sidecar.signal()
        assert sidecar.wait() == code
        image = image_of(path)
    assert cli.call("restore", *cli.bucket_options, "-o", "copy.db").code == 0
    assert (cli.home / "copy.db").read_bytes() == image


def test_the_commands_output_is_its_own(cli, path):
    """Standard output passes through; the sidecar logs to standard error. Exit code 2 reports that
    the command made no database at the path, which may be wrong."""
    done = run_command(cli, path, sys.executable, "-c", "print('hello')")
    assert (done.code, done.out) == (2, "hello\n")
    assert list(path.parent.glob(".*-replicator")) == []


def test_a_command_may_use_the_sidecar(cli, path, note):
    """Within the command, `replicator flush` makes its commits durable."""
    script = (
        f'"{sys.executable}" -c "import sqlite3; d = sqlite3.connect({str(path)!r}); '
        "d.execute('PRAGMA journal_mode=WAL'); d.execute('CREATE TABLE t(a)'); d.commit()\" "
        f'&& "{sys.executable}" -m replicator flush "{path}" --json'
    )
    done = run_command(cli, path, "sh", "-c", script)
    assert done.code == 0, done.err
    assert done.json["txid"] >= 1


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "file"])
def test_the_progress_of_a_restore(cli, path, terminal):
    """On a terminal a restore draws a moving bar; elsewhere it prints plain lines without control
    sequences."""
    with App(path) as app:
        app.insert(3000, 1000)
        sidecar = cli.sidecar(path)
        sidecar.until_following()
        assert sidecar.stop() == 0
    arguments = [
        sys.executable,
        "-m",
        "replicator",
        "restore",
        *cli.bucket_options,
        "-o",
        "copy.db",
    ]
    code, output = (in_terminal if terminal else in_pipe)(
        arguments, cli.home, {**cli.environment, "TERM": "xterm"}
    )
    assert code == 0, output
    assert "Traceback" not in output
    assert "restored" in output
    assert ("━" in output) is terminal
    assert ("\x1b[" in output) is terminal
    assert ("fetching the snapshot: " in output) is not terminal
    assert (cli.home / "copy.db").read_bytes() == image_of(path)


def in_terminal(arguments, cwd, environment):
    """(exit code, output) of a command on a pseudo-terminal."""
    pid, terminal = os.forkpty()
    if pid == 0:
        try:
            os.chdir(cwd)
            os.execve(arguments[0], arguments, environment)
        finally:
            os._exit(99)
    shown, until = b"", time.monotonic() + 60
    while time.monotonic() < until:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        shown += data
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


def in_pipe(arguments, cwd, environment):
    """(exit code, output) of a command with pipes."""
    done = subprocess.run(
        arguments, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr
