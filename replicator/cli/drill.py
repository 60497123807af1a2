"""``replicator drill``: restore to a scratch directory, check, and record the result."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from replicator.cli import options, output, progress
from replicator.cli.sidecar import LocalSidecar, show_repair
from replicator.config.units import parse_duration
from replicator.errors import CheckFailed, DamageError, GapError

if TYPE_CHECKING:
    from replicator.verify.drill import DrillReport


def command(
    *,
    location: options.Location,
    point: options.Point,
    scratch: options.Scratch = None,
    assertions: Annotated[
        list[str] | None,
        options.option(
            "--assert",
            metavar="SQL",
            help="a query that must return one true value; may be repeated; it can only read",
        ),
    ] = None,
    assert_timeout: Annotated[
        float | None,
        options.option(
            "--assert-timeout",
            parser=options.reported(parse_duration),
            metavar="DURATION",
            help="longest time of one check, e.g. 1h; default: 10m",
        ),
    ] = None,
    load_extension: options.LoadExtension = None,
    local: LocalSidecar,
    as_json: options.AsJson = False,
) -> int:
    """Restore to a scratch directory, check the result, and record it in the bucket.

    A failure is recorded too; with --database the sidecar then makes the newest state restorable
    again. Exit code 10 if the restore is exact, but a check of SQLite cannot be made here.
    """
    from replicator.sqlite.connect import extensions
    from replicator.sqlite.isolated import DEFAULT_LIMITS
    from replicator.verify.drill import drill_at

    seconds = DEFAULT_LIMITS.seconds if assert_timeout is None else assert_timeout
    try:
        with progress.shown(as_json=as_json) as listener:
            report = drill_at(
                location.address,
                assertions=assertions or (),
                scratch=scratch,
                point=point.restore_point,
                progress=listener,
                prepare=extensions(load_extension or ()),
                sql=replace(DEFAULT_LIMITS, seconds=seconds),
            )
    except (DamageError, GapError, CheckFailed):
        repair = local.repair()
        if not as_json:
            show_repair(repair)
        raise
    local.report_drill()
    output.result(report, show, as_json=as_json)
    return report.exit_code


def show(report: DrillReport) -> None:
    """The verdict first, then the figures behind it."""
    done = report.restore
    output.say(
        f"[bold green]● verified[/]  transaction {done.txid:,} of {output.safe(done.url)} is "
        "restorable"
    )
    output.facts(
        [
            ("transaction", output.transaction(done.txid, done.committed_at)),
            ("fetched", output.amount(done.objects, "object", done.downloaded_bytes)),
            ("database", f"{output.size(done.size)}, checksum {done.checksum:016x}"),
            ("took", output.duration(report.seconds)),
            ("verified", output.safe(", ".join([done.verified, *report.checked]))),
            ("recorded", output.safe(report.recorded or f"nowhere: {report.unrecorded}")),
            *([("seals", f"[bold yellow]{output.NO_KEY}[/]")] if done.unauthenticated else []),
            *output.inconclusive(report.inconclusive),
        ]
    )
