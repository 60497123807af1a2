"""``replicator verify``: check the archive of a database, object by object."""

from __future__ import annotations

import secrets
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from replicator.cli import options, output, progress
from replicator.cli.sidecar import LocalSidecar, show_repair

if TYPE_CHECKING:
    from replicator.verify.consistency import Finding
    from replicator.verify.verify import VerifyReport, Window


def command(
    *,
    location: options.Location,
    data: Annotated[
        bool,
        options.option("--data", help="download and check every byte"),
    ] = False,
    sample: Annotated[
        str | None,
        options.option(
            "--sample",
            metavar="1/7|2%|50M",
            help="download and check a part: the seventh of today, or a random sample by share or "
            "size",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        options.option("--seed", metavar="N", help="repeat an earlier random sample"),
    ] = None,
    local: LocalSidecar,
    as_json: options.AsJson = False,
) -> int:
    """Check that the objects in the bucket are consistent, and list what can be restored.

    Damage is recorded in the bucket, and the sidecar then makes the newest state restorable again;
    with --database it does so at once. Exit code 3 for damage, 4 for a missing object, 10 for one
    whose newer format this version cannot check.
    """
    from replicator.verify.verify import verify_at

    with progress.shown(as_json=as_json) as listener:
        report = verify_at(
            location.address,
            data=data,
            sample=sample,
            progress=listener,
            seed=secrets.randbits(32) if seed is None else seed,
        )
    repair = local.repair() if report.bad else {}
    if as_json:
        output.emit_json(asdict(report) | {"exit_code": report.exit_code} | repair)
    else:
        show(report)
        show_repair(repair)
    return report.exit_code


def show(report: VerifyReport) -> None:
    """The verdict first, then the figures, then each finding."""
    verdict = {
        0: "[bold green]● whole[/]",
        3: "[bold red]● DAMAGED[/]",
        10: "[bold yellow]● inconclusive[/]",
    }
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
            "checked",
            f"{output.amount(report.objects, 'object', report.bytes)} as listed, "
            f"in {output.duration(report.seconds)}",
        ),
        ("read", _read(report)),
        ("restorable", "; ".join(map(_window, report.restorable)) or "[bold red]nothing[/]"),
        (
            "newest",
            f"transaction {report.head_txid:,}, "
            + ("restorable" if report.newest_restorable else "[bold red]NOT restorable[/]"),
        ),
    ]
    if report.unauthenticated:
        rows.append(("seals", f"[bold yellow]{output.NO_KEY}[/]"))
    if report.lost:
        rows.append(("lost", f"[bold red]{_ranges(report.lost)}[/]"))
    return rows


def _read(report: VerifyReport) -> str:
    if not report.read_objects:
        return "no object in full; --data reads all"
    how = f", a sample of {report.sample}" if report.sample else ""
    drawn = f" drawn with --seed {report.seed}" if report.seed is not None else ""
    return (
        f"{output.amount(report.read_objects, 'object', report.read_bytes)}"
        f"{output.safe(how)}{drawn}"
    )


def _finding(finding: Finding) -> list[tuple[str, str]]:
    lost = (
        f"transactions {_ranges(finding.lost)}"
        if finding.lost
        else "nothing: other objects hold the same transactions"
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
