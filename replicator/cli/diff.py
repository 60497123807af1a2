"""``replicator diff``: which tables changed between two restore points, and by how many rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from replicator.cli import options, output, progress

if TYPE_CHECKING:
    from replicator.inspect.diff import DiffReport, Point
    from replicator.sqlite.compare import TableChange


def command(
    since: Annotated[
        str,
        typer.Option(
            "--from",
            envvar="REPLICATOR_FROM",
            metavar="T",
            help="a txid, or a time (like 2026-01-31T14:05:00Z, or '2 hours ago')",
        ),
    ],
    bucket: options.Bucket = "",
    prefix: options.Prefix = "",
    url: options.Url = "",
    endpoint_url: options.EndpointUrl = None,
    region: options.Region = None,
    profile: options.Profile = None,
    until: Annotated[
        str,
        typer.Option("--to", envvar="REPLICATOR_TO", metavar="T", help="the same"),
    ] = "newest",
    scratch: options.Scratch = None,
    as_json: options.AsJson = False,
) -> None:
    """Compare two restore points, table by table.

    Both are restored to a scratch directory; rows are matched by rowid or primary key.
    """
    from replicator.inspect.diff import diff_at
    from replicator.inspect.open import When

    with progress.shown(as_json=as_json) as report_progress:
        report = diff_at(
            options.address(bucket, prefix, url, endpoint_url, region, profile),
            When.parse(since),
            When.parse(until),
            scratch=scratch,
            progress=report_progress,
        )
    if as_json:
        output.emit_json(report)
    else:
        show(report)


def show(report: DiffReport) -> None:
    """The two points, the schema, then a row a table."""
    output.say(f"[bold]{output.safe(report.url)}[/]")
    output.facts(
        [("from", _point(report.older)), ("to", _point(report.newer)), ("pages", _pages(report))]
    )
    if not report.schema and not report.tables:
        output.say("no table changed")
    if report.schema:
        output.say()
        output.table(
            ("schema", "name", "change"),
            ((change.kind, output.safe(change.name), change.change) for change in report.schema),
        )
    if report.tables:
        output.say()
        output.table(
            ("table", ">inserted", ">deleted", ">updated", "note"), map(_row, report.tables)
        )


def _point(point: Point) -> str:
    known = point.committed_at is not None
    at = f", committed {output.moment(point.committed_at)}" if known else ""
    return f"transaction {point.txid:,}{at}, {output.size(point.pages * point.page_size)}"


def _pages(report: DiffReport) -> str:
    if report.changed_pages is None:
        return "the page size changed"
    most = max(report.older.pages, report.newer.pages)
    return f"{report.changed_pages:,} of {most:,} differ"


def _row(change: TableChange) -> tuple[str, ...]:
    figures = (
        "?" if each is None else f"{each:,}"
        for each in (change.inserted, change.deleted, change.updated)
    )
    return (output.safe(change.table), *figures, output.safe(change.note))
