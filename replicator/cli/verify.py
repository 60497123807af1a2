"""``replicator verify``: is what the bucket holds of a database whole?"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from replicator.cli import options, output, progress, sidecar

if TYPE_CHECKING:
    from replicator.verify.consistency import Finding
    from replicator.verify.verify import VerifyReport, Window


def command(
    bucket: options.Bucket = "",
    prefix: options.Prefix = "",
    url: options.Url = "",
    endpoint_url: options.EndpointUrl = None,
    region: options.Region = None,
    profile: options.Profile = None,
    data: Annotated[
        bool,
        typer.Option("--data", envvar="REPLICATOR_DATA", help="read and check every byte"),
    ] = False,
    sample: Annotated[
        str | None,
        typer.Option(
            envvar="REPLICATOR_SAMPLE",
            metavar="1/7|2%|50M",
            help="read and check a part: a seventh that rotates by day, or a draw",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(envvar="REPLICATOR_SEED", metavar="N", help="repeat the draw of a sample"),
    ] = None,
    db: options.LocalDatabase = None,
    cache_dir: options.CacheDir = None,
    as_json: options.AsJson = False,
) -> int:
    """Check that everything in the bucket fits together, and say what can be restored.

    Damage is noted in the bucket, so that the sidecar makes the present restorable again; with
    --database it does so at once. Exit code 3 for damage, 4 if something is missing.
    """
    from replicator.verify.verify import verify_at

    with progress.shown(as_json=as_json) as report_progress:
        report = verify_at(
            options.address(bucket, prefix, url, endpoint_url, region, profile),
            data=data,
            sample=sample,
            progress=report_progress,
            seed=secrets.randbits(32) if seed is None else seed,
        )
    repair = _repair(db, cache_dir) if report.findings else {}
    if as_json:
        output.emit_json({**output.plain(report), "exit_code": report.exit_code} | repair)
    else:
        show(report)
        sidecar.show_repair(repair)
    return report.exit_code


def _repair(db: Path | None, cache_dir: Path | None) -> dict[str, Any]:
    return sidecar.ask_for_repair(db, cache_dir) if db is not None else {}


def show(report: VerifyReport) -> None:
    """The verdict first, then each finding, then what remains."""
    verdict = {0: "[bold green]● whole[/]", 3: "[bold red]● DAMAGED[/]"}
    mark = verdict.get(report.exit_code, "[bold red]● INCOMPLETE[/]")
    output.say(f"{mark}  {output.safe(report.url)}")
    output.facts(_rows(report))
    for finding in report.findings:
        output.say()
        output.say(f"[bold red]{finding.kind}[/] {output.safe(finding.key)}")
        output.facts(_finding(finding))


def _rows(report: VerifyReport) -> list[tuple[str, str]]:
    rows = [
        (
            "looked at",
            f"{output.plural(report.objects, 'object')}, {output.size(report.bytes)}, "
            f"in {output.duration(report.seconds)}",
        ),
        ("read", _read(report)),
        ("restorable", "; ".join(map(_window, report.restorable)) or "[bold red]nothing[/]"),
        (
            "newest",
            f"transaction {report.head_txid:,}, "
            + ("restorable" if report.present else "[bold red]NOT restorable[/]"),
        ),
    ]
    if report.lost:
        rows.append(("lost", f"[bold red]{_ranges(report.lost)}[/]"))
    return rows


def _read(report: VerifyReport) -> str:
    if not report.read_objects:
        return "nothing to its last byte; --data does"
    how = f", a sample of {report.sample}" if report.sample else ""
    drawn = f" drawn with --seed {report.seed}" if report.seed is not None else ""
    return (
        f"{output.plural(report.read_objects, 'object')}, "
        f"{output.size(report.read_bytes)}{output.safe(how)}{drawn}"
    )


def _finding(finding: Finding) -> list[tuple[str, str]]:
    lost = (
        f"transactions {_ranges(finding.lost)}"
        if finding.lost
        else "nothing: other objects hold the same"
    )
    return [
        ("problem", output.safe(finding.problem)),
        ("holds", f"transactions {_ranges(((finding.first_txid, finding.last_txid),))}"),
        ("lost", lost),
    ]


def _window(window: Window) -> str:
    until = f" ({output.moment(window.last_ms)})" if window.last_ms else ""
    return f"transactions {_ranges(((window.first_txid, window.last_txid),))}{until}"


def _ranges(ranges: tuple[tuple[int, int], ...]) -> str:
    return ", ".join(
        f"{first:,}" if first == last else f"{first:,} … {last:,}" for first, last in ranges
    )
