"""The command line: parses options, calls the library, formats the result; decides nothing.

One module per command. Exit codes are those of :mod:`replicator.errors`, and 128 + N when
signal N ended the program.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from replicator._version import __version__
from replicator.cli import options, output
from replicator.errors import ConfigError, ReplicatorError
from replicator.sidecar.launch import Start, run_here
from replicator.sidecar.logs import PlainLines

__all__ = ["application", "call", "ended"]

# click's UsageError, under whatever name this version of typer keeps it
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]

COMMANDS = (
    "run",
    "restore",
    "status",
    "flush",
    "mark",
    "snapshot",
    "history",
    "diff",
    "open",
    "verify",
    "drill",
    "cost",
    "prune",
    "pin",
    "unpin",
    "doctor",
    "demo",
)


def command(name: str) -> Callable[..., int | None]:
    """The function of a command; only its module is loaded."""
    found: Callable[..., int | None] = importlib.import_module(f"replicator.cli.{name}").command
    return found


def application(*names: str) -> typer.Typer:
    """The program with the commands of these names, or with all: one is loaded and
    built 60 ms sooner."""
    app = typer.Typer(
        name="replicator",
        help="Replicates SQLite databases to S3, and restores them to any transaction.",
        epilog="Exit codes: 0 ok, 1 error, 2 usage or configuration, 3 damage, 4 gap, 5 store "
        "unreachable or not durable, 6 refused, 7 local I/O, 8 already running, "
        "9 nothing to restore, 10 inconclusive, 128+N signal N.",
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name in names or COMMANDS:
        app.command(name)(options.expanded(command(name)))
    return app


def _version(wanted: bool) -> None:
    if wanted:
        print(f"replicator {__version__}")  # noqa: T201
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="show the version"),
    ] = False,
) -> None:
    pass


def wants_json(args: Sequence[str]) -> bool:
    """True if errors are printed as JSON; works for arguments that cannot be parsed, too."""
    ours = args[: args.index("--")] if "--" in args else args
    return "--json" in ours or options.is_on(os.environ.get("REPLICATOR_JSON", ""))


def call(args: Sequence[str], start: Start = run_here) -> int:
    """Run one command line and return its exit code; errors are reported on stderr.

    ``replicator run`` passes its request to ``start``.
    """
    _escape_warnings()
    try:
        names = [name for name in args[:1] if name in COMMANDS]
        code = typer.main.get_command(application(*names)).main(
            list(args) or ["--help"],
            prog_name="replicator",
            standalone_mode=False,
            obj=start,
        )
    except _UsageError as error:
        command = getattr(getattr(error, "ctx", None), "command_path", "replicator")
        return _failed(args, ConfigError(_lower(error), hint=f"see {command} --help", code="usage"))
    except (ReplicatorError, typer.Abort, KeyboardInterrupt, BrokenPipeError) as error:
        return ended(args, error)
    except OSError as error:  # of a stream: a full disk behind a redirection
        from replicator.system.files import local_error

        return _failed(args, local_error(error, error.filename or "standard output"))
    return code if isinstance(code, int) else 0


def _escape_warnings() -> None:
    """Warnings of the library, which logging prints on stderr where no log is set up."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(PlainLines("%(message)s"))


def ended(args: Sequence[str], error: BaseException) -> int:
    """The exit code for ``error``; reports the errors of the library."""
    if isinstance(error, ReplicatorError):
        return _failed(args, error)
    if not isinstance(error, BrokenPipeError):
        return 130
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141


def _failed(args: Sequence[str], error: ReplicatorError) -> int:
    with contextlib.suppress(OSError):  # standard error may be closed, or on a full disk
        output.report_error(error, as_json=wants_json(args))
    return error.exit_code


def _lower(error: Exception) -> str:
    """The message of a usage error in the style of the project: lower case, no final stop."""
    text = getattr(error, "format_message", lambda: str(error))().rstrip(".")
    return str(text[:1].lower() + text[1:])
