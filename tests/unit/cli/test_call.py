"""replicator.cli: arguments in, exit code out, errors in one voice."""

import contextlib
import json
import logging
import os
import subprocess
import sys
import types

import pytest

from replicator import __version__, cli, errors


def exit_codes():
    """Every error class of the project."""
    return [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, errors.ReplicatorError)
    ]


def test_version(capsys):
    """The name and the number, on stdout."""
    assert cli.call(["--version"]) == 0
    assert capsys.readouterr().out == f"replicator {__version__}\n"


def test_without_arguments_there_is_help(capsys):
    """Nothing asked for is not an error."""
    assert cli.call([]) == 0
    assert "restore" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bogus"], "error: no such command 'bogus'"),
        (["status"], "error: no database is named"),
        (["snapshot"], "error: missing argument 'DB'"),
        (["restore", "--nonsense"], "error: no such option: --nonsense"),
        (["restore"], "error: set either a bucket or a url"),
        (["history"], "error: set either a bucket or a url"),
        (
            ["flush", "x.db", "--timeout", "soon"],
            "error: invalid value for '--timeout' (env var: 'REPLICATOR_TIMEOUT'): "
            "'soon' is not a duration",
        ),
        (
            ["run", "x.db", "--bucket", "b", "--max-cache-bytes", "much"],
            "error: invalid value for '--max-cache-bytes' (env var: 'REPLICATOR_MAX_CACHE_BYTES'): "
            "'much' is not a size",
        ),
        (
            ["prune", "--bucket", "b", "--keep-snapshots", "0"],
            "error: invalid value for '--keep-snapshots' (env var: 'REPLICATOR_KEEP_SNAPSHOTS'): "
            "0 is out of bounds; it must be at least 1",
        ),
        (["run", "x.db"], "error: neither bucket nor url is set"),
    ],
)
def test_what_cannot_work_is_said_once_and_exits_2(capsys, arguments, words):
    """Usage errors look like all others: lower case, no final stop, a hint."""
    assert cli.call(arguments) == 2
    captured = capsys.readouterr()
    first = captured.err.splitlines()[0]
    assert captured.out == ""
    assert first.startswith(words)
    assert not first.endswith(".")


def test_with_json_even_a_usage_error_is_json(capsys):
    """A program need not parse prose, whatever went wrong."""
    assert cli.call(["snapshot", "--json"]) == 2
    document = json.loads(capsys.readouterr().err)
    assert document == {
        "error": "missing argument 'DB'",
        "code": "usage",
        "exit_code": 2,
        "kind": "ConfigError",
        "hint": "see replicator snapshot --help",
    }


@pytest.mark.parametrize(
    ("arguments", "variable", "wanted"),
    [
        (["status", "--json"], None, True),
        (["status"], None, False),
        (["run", "db", "--", "cmd", "--json"], None, False),
        (["status"], "yes", True),
        (["status"], "On", True),
        (["status"], "maybe", False),
        (["status"], "0", False),
    ],
)
def test_json_is_wanted_by_option_or_variable_but_not_by_the_child(
    monkeypatch, arguments, variable, wanted
):
    """The arguments after ``--`` belong to the command."""
    if variable is not None:
        monkeypatch.setenv("REPLICATOR_JSON", variable)
    assert cli.wants_json(arguments) is wanted


@pytest.fixture
def raising(monkeypatch):
    """Make ``replicator demo`` raise."""

    def raising(error):
        def command():
            raise error

        module = types.SimpleNamespace(command=command)
        monkeypatch.setitem(sys.modules, "replicator.cli.demo", module)

    return raising


@pytest.mark.parametrize("error", exit_codes(), ids=lambda each: each.__name__)
def test_the_class_decides_the_exit_code(raising, capsys, error):
    """Each error of the library ends the program with the code its class owns."""
    raising(error("it went wrong", hint="do this"))
    assert cli.call(["demo"]) == error.exit_code
    assert capsys.readouterr().err == "error: it went wrong\nhint:  do this\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt, cli.typer.Abort])
def test_ctrl_c_is_128_plus_2(raising, error):
    """As in a shell, for both exceptions that typer may raise."""
    raising(error())
    assert cli.call(["demo"]) == 130


def test_other_exceptions_are_bugs_and_not_hidden(raising):
    """An unexpected error prints its traceback."""
    raising(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        cli.call(["demo"])


def test_a_closed_pipe_ends_quietly():
    """``replicator … | head`` prints no traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    code = (
        "import sys, types; from replicator import cli\n"
        "def broken(**_): raise BrokenPipeError\n"
        "module = types.SimpleNamespace(command=lambda: broken())\n"
        "sys.modules['replicator.cli.demo'] = module\n"
        "sys.exit(cli.call(['demo']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_the_module_can_be_run():
    """``python -m replicator`` is the console script."""
    done = subprocess.run(
        [sys.executable, "-m", "replicator", "--version"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, f"replicator {__version__}\n")


def test_warnings_of_the_library_are_escaped(capsys):
    """Where no log is set up, logging prints them on stderr: as one printable line each."""
    cli.call(["--version"])
    logger = logging.getLogger("a logger without a handler")
    with contextlib.ExitStack() as stack:
        root = logging.getLogger()
        handlers, root.handlers[:] = root.handlers[:], []
        stack.callback(root.handlers.extend, handlers)
        logger.warning("%s is damaged", "wal/x\n\x1b[2J")
    assert capsys.readouterr().err.endswith("wal/x\\n\\x1b[2J is damaged\n")
