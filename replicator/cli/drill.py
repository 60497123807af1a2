"""``replicator drill``: restore to scratch, check, and record that it worked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from replicator.cli import options, output, progress, sidecar
from replicator.errors import CheckFailed, DamageError, GapError

if TYPE_CHECKING:
    from replicator.verify.drill import DrillReport


def command(
    bucket: options.Bucket = "",
    prefix: options.Prefix = "",
    url: options.Url = "",
    endpoint_url: options.EndpointUrl = None,
    region: options.Region = None,
    profile: options.Profile = None,
    txid: options.Txid = None,
    timestamp: options.Timestamp = None,
    scratch: options.Scratch = None,
    assertions: Annotated[
        list[str] | None,
        typer.Option(
            "--assert",
            envvar="REPLICATOR_ASSERT",
            metavar="SQL",
            help="a statement that must give one true value; may be repeated",
        ),
    ] = None,
    db: options.LocalDatabase = None,
    cache_dir: options.CacheDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Restore to a scratch directory, check the result, and record it in the bucket.

    A failure is recorded too; with --database the sidecar then makes the present restorable
    again.
    """
    from replicator.verify.drill import drill_at

    try:
        with progress.shown(as_json=as_json) as report_progress:
            report = drill_at(
                options.address(bucket, prefix, url, endpoint_url, region, profile),
                assertions=assertions or (),
                scratch=scratch,
                txid=txid,
                timestamp=timestamp,
                progress=report_progress,
            )
    except (DamageError, GapError, CheckFailed):
        _tell(db, cache_dir, as_json=as_json)
        raise
    if db is not None:
        sidecar.tell_of_proof(db, cache_dir)
    if as_json:
        output.emit_json(report)
    else:
        show(report)


def _tell(db: Path | None, cache_dir: Path | None, *, as_json: bool) -> None:
    repair = sidecar.ask_for_repair(db, cache_dir) if db is not None else {}
    if not as_json:
        sidecar.show_repair(repair)


def show(report: DrillReport) -> None:
    done = report.restore
    known = done.committed_at is not None
    at = f", committed {output.moment(done.committed_at)}" if known else ""
    output.say(
        f"[bold green]● proven[/]  transaction {done.txid:,} of "
        f"{output.safe(done.url)} can be restored"
    )
    output.facts(
        [
            ("transaction", f"{done.txid:,}{at}"),
            (
                "fetched",
                f"{output.plural(done.objects, 'object')}, {output.size(done.downloaded_bytes)}",
            ),
            ("database", f"{output.size(done.size)}, checksum {done.checksum:016x}"),
            ("took", output.duration(report.seconds)),
            ("proved", output.safe(", ".join([done.verified, *report.checked]))),
            ("recorded", output.safe(report.recorded or f"nowhere: {report.unrecorded}")),
        ]
    )
