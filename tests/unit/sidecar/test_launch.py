"""The start of a sidecar: a child process parses, its parent runs."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from replicator.sidecar.daemon import databases_of
from replicator.sidecar.launch import RunRequest

# ``run`` takes the part of the daemon: its argument and its process are of interest.
PROGRAM = """
import os, signal, sys
import replicator.sidecar.daemon
from replicator.system.process import claimed
from replicator.errors import AlreadyRunning
first = os.getpid()

def run(request):
    {body}

replicator.sidecar.daemon.run = run
from replicator.__main__ import main
main()
"""


def program(body, *arguments):
    """``replicator ARGUMENTS`` with such a daemon; its exit code, stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_sidecar_does_not_keep_the_modules_of_the_command_line():
    """The process that was started runs it, with the parsed options, without the modules that
    parsed them, and claimed for the replicator."""
    body = (
        "print(os.getpid() == first, {'typer', 'pydantic', 'replicator.cli'} & {*sys.modules},"
        " request.settings, request.command, request.as_json, claimed()); return 7"
    )
    options = ["--bucket", "b", "--sync-interval", "2s", "--json"]
    assert program(body, "run", "x.db", *options, "--", "true", "--help") == (
        7,
        "True set() {'bucket': 'b', 'sync_interval': 2.0, 'db_path': 'x.db'} ['true', '--help']"
        " True True\n",
        "",
    )


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--help"], 0), (["x.db", "--help"], 0), (["--nonsense"], 2), ([], 2)]
)
def test_without_a_request_the_exit_code_is_that_of_the_parser(arguments, code):
    """Help and usage errors are printed once, and nothing runs."""
    returned, out, err = program("print('it runs')", "run", *arguments)
    assert (returned, "it runs" in out, err.count("error:")) == (code, False, int(code > 0))


@pytest.mark.parametrize(
    ("error", "code", "start"),
    [("AlreadyRunning('taken')", 8, "error: taken\n"), ("KeyboardInterrupt", 130, "")],
)
def test_an_error_of_the_sidecar_is_reported_as_by_any_command(error, code, start):
    """The class decides the exit code."""
    returned, _, err = program(f"raise {error}", "run", "x.db", "--bucket", "b")
    assert (returned, err.startswith(start)) == (code, True)


def test_a_setting_that_cannot_work_is_reported_as_by_any_command():
    """The parent checks the settings, and reports in the form that the options ask for."""
    done = subprocess.run(
        [sys.executable, "-m", "replicator", "run", "x.db", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert '"kind": "ConfigError"' in done.stderr


def test_a_parser_that_is_killed_ends_as_a_command_that_is_killed():
    """128 + N, as in a shell."""
    code = (
        "import os, sys; from replicator.sidecar import launch\n"
        "sys.exit(launch.launch(lambda start: os.kill(os.getpid(), 9)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == 128 + signal.SIGKILL


@pytest.mark.parametrize(
    "request_",
    [
        RunRequest({"db_path": "a\udcff.db", "keep_daily": float("inf"), "keep": False}),
        RunRequest({}, "r.toml", ["true", "ü"], as_json=True),
    ],
)
def test_a_request_survives_the_pipe(request_):
    """JSON keeps every value, bytes that are not UTF-8 and an infinite time included."""
    assert RunRequest.from_json(request_.to_json()) == request_


def test_a_path_becomes_text():
    """The settings accept both."""
    request = RunRequest({"drill_scratch": Path("/tmp")})
    assert RunRequest.from_json(request.to_json()).settings == {"drill_scratch": "/tmp"}


def test_the_settings_of_a_request_decide(tmp_path, monkeypatch):
    """They go before the environment and the file; the rest comes from these."""
    monkeypatch.setenv("REPLICATOR_POLL_INTERVAL", "7s")
    request = RunRequest({"db_path": "x.db", "bucket": "b", "sync_interval": 2.0})
    (config,) = databases_of(request).configs
    assert (config.address.url, config.sync_interval, config.poll_interval) == ("s3://b/x.db", 2, 7)
    file = tmp_path / "r.toml"
    file.write_text('bucket = "b"\nsync_interval = 1\n[[database]]\npath = "x.db"\n')
    databases = databases_of(RunRequest({"sync_interval": 2.0}, str(file)))
    (config,) = databases.configs
    assert (databases.independent, config.database) == (True, tmp_path / "x.db")
    assert (config.sync_interval, config.poll_interval) == (2, 7)
