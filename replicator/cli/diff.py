"""``replicator diff``: the changed tables and rows between two restore points."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from replicator.cli import options, output, progress

if TYPE_CHECKING:
    from replicator.inspect.diff import ComparedPoint, DiffReport
    from replicator.sqlite.compare import TableChange


def command(
    *,
    since: Annotated[
        str,
        options.option(
            "--from",
            metavar="T",
            help="the older point: a txid, a time, for example 2026-01-31T14:05:00.123Z or "
            "'2 hours ago', or the name of a pin",
        ),
    ],
    location: options.Location,
    until: Annotated[
        str,
        options.option("--to", metavar="T", help="the newer point, in the same forms"),
    ] = "newest",
    scratch: options.Scratch = None,
    load_extension: options.LoadExtension = None,
    as_json: options.AsJson = False,
) -> int:
    """Compare two restore points, table by table.

    Both points are restored to a scratch directory. Rows are matched by rowid or primary key.
    Exit code 10 if a table cannot be compared here.
    """
    from replicator.archive.point import RestorePoint
    from replicator.inspect.diff import diff_at
    from replicator.sqlite.connect import extensions

    with progress.shown(as_json=as_json) as listener:
        report = diff_at(
            location.address,
            RestorePoint.parse(since),
            RestorePoint.parse(until),
            scratch=scratch,
            progress=listener,
            prepare=extensions(load_extension or ()),
        )
    if as_json:
        output.emit_json(asdict(report) | {"inconclusive": report.inconclusive})
    else:
        show(report)
    return report.exit_code


def show(report: DiffReport) -> None:
    """The two points, the schema, then one row for each table."""
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


def _point(point: ComparedPoint) -> str:
    transaction = output.transaction(point.txid, point.committed_at)
    return f"transaction {transaction}, {output.size(point.pages * point.page_size)}"


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
