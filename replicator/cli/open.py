"""``replicator open``: look at a restore point in a SQLite shell, or with any command."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from replicator.cli import options, output, progress

if TYPE_CHECKING:
    from replicator.model import RestoreReport


def command(
    cmd: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- CMD …]", help="run this instead of the sqlite3 shell; {} is the file"
        ),
    ] = None,
    bucket: options.Bucket = "",
    prefix: options.Prefix = "",
    url: options.Url = "",
    endpoint_url: options.EndpointUrl = None,
    region: options.Region = None,
    profile: options.Profile = None,
    txid: options.Txid = None,
    timestamp: options.Timestamp = None,
    scratch: options.Scratch = None,
    as_json: options.AsJson = False,
) -> int:
    """Open a restore point read-only, and forget it afterwards.

    The file takes the place of {} in CMD, or comes after it, and is in REPLICATOR_DATABASE. The
    exit code is that of the command.
    """
    from replicator.inspect.open import When, opened_point, run_on, shell

    address = options.address(bucket, prefix, url, endpoint_url, region, profile)
    words = cmd or shell()  # before anything is fetched
    with contextlib.ExitStack() as stack:
        with progress.shown(as_json=as_json) as report_progress:
            path, report = stack.enter_context(
                opened_point(
                    address, When(txid, timestamp), scratch=scratch, progress=report_progress
                )
            )
        _announce(report)
        return run_on(path, words)


def _announce(report: RestoreReport) -> None:
    """On stderr, for stdout is the command's."""
    at = f", committed {output.moment(report.committed_at)}" if report.committed_at else ""
    print(f"transaction {report.txid:,}{at}, read-only", file=sys.stderr, flush=True)  # noqa: T201
