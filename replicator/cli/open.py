"""``replicator open``: read a restore point in a SQLite shell, or with any command."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from replicator.cli import options, output, progress


def command(
    *,
    cmd: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- CMD …]",
            help="run this instead of the sqlite3 shell; {} stands for the file",
        ),
    ] = None,
    location: options.Location,
    point: options.Point,
    scratch: options.Scratch = None,
    as_json: options.AsJson = False,
) -> int:
    """Open a restore point read-only, and delete the file afterwards.

    The path of the file replaces {} in CMD, or follows CMD; it is also in REPLICATOR_DATABASE. The
    exit code is that of the command.
    """
    from replicator.inspect.open import opened_point, run_on, shell

    target, when = location.address, point.restore_point
    words = cmd or shell()  # a missing shell is an error before any download
    with contextlib.ExitStack() as stack:
        with progress.shown(as_json=as_json) as listener:
            path, report = stack.enter_context(
                opened_point(target, when, scratch=scratch, progress=listener)
            )
        # on stderr: stdout belongs to the command
        transaction = output.transaction(report.txid, report.committed_at)
        output.note(f"transaction {transaction}, read-only")
        return run_on(path, words)
