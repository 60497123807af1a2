"""How a sidecar begins: parsed in a child, run by its parent."""

import signal
import subprocess
import sys

import pytest

from replicator.sidecar import daemon, launch

# The daemon's part is played by ``run``: what it was called with, in which process.
PROGRAM = """
import os, signal, sys
import replicator.sidecar.daemon
from replicator.system.process import claimed
from replicator.errors import AlreadyRunning
first = os.getpid()

def run(config, command, *, as_json):
    {body}

replicator.sidecar.daemon.run_sidecar = run
from replicator.__main__ import main
main()
"""


def program(body, *arguments, env=None):
    """``replicator ARGUMENTS`` with such a daemon; its exit code, and what it wrote."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_sidecar_is_free_of_what_parsed_its_command_line():
    """The process that was started runs it, with the arguments that were given, without the
    modules that read them, and as one in which no application lives."""
    body = (
        "print(os.getpid() == first, {'typer', 'pydantic', 'replicator.cli'} & {*sys.modules},"
        " config.target.url, config.sync_interval, command, as_json, claimed()); return 7"
    )
    assert program(
        body,
        "run",
        "x.db",
        "--bucket",
        "b",
        "--sync-interval",
        "2s",
        "--json",
        "--",
        "true",
        "--help",
    ) == (7, "True set() s3://b/x.db 2.0 ['true', '--help'] True True\n", "")


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["--nonsense"], 2), ([], 2)])
def test_what_runs_nothing_ends_with_the_code_of_its_parser(arguments, code):
    """Help and usage errors come once, and nothing is begun."""
    found, out, err = program("print('begun')", "run", *arguments)
    assert (found, "begun" in out, err.count("error:")) == (code, False, int(code > 0))


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [("AlreadyRunning('taken')", 8, "error: taken\n"), ("KeyboardInterrupt", 130, "")],
)
def test_what_the_sidecar_ends_in_is_reported_as_by_any_command(error, code, told):
    """The class decides the exit code, and JSON is an option."""
    found, _, err = program(f"raise {error}", "run", "x.db", "--bucket", "b")
    assert (found, err.startswith(told)) == (code, True)


def test_a_parser_that_was_killed_is_told_like_a_command_that_was():
    """128 + N, as a shell would say."""
    code = (
        "import os, sys; from replicator.sidecar import launch\n"
        "sys.exit(launch.apart(lambda: os.kill(os.getpid(), 9)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == 128 + signal.SIGKILL


def test_a_sidecar_begins_here_where_nobody_waits(monkeypatch):
    """As from a command line that is called in the process."""
    monkeypatch.setattr(daemon, "run_sidecar", lambda *a, **k: (a, k))
    assert launch.begin("run_sidecar", 1, as_json=True) == ((1,), {"as_json": True})
