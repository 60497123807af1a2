"""``replicator cost``: what a month of this costs at list prices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from replicator.cli import options, output

if TYPE_CHECKING:
    from replicator.inspect.cost import Bill, CostReport, Usage


def command(
    bucket: options.Bucket = "",
    prefix: options.Prefix = "",
    url: options.Url = "",
    endpoint_url: options.EndpointUrl = None,
    region: options.Region = None,
    profile: options.Profile = None,
    gb_month: Annotated[
        float | None,
        typer.Option(
            "--price-gb-month",
            envvar="REPLICATOR_PRICE_GB_MONTH",
            metavar="USD",
            help="your price for a GB stored for a month",
            min=0,
        ),
    ] = None,
    put: Annotated[
        float | None,
        typer.Option(
            "--price-put",
            envvar="REPLICATOR_PRICE_PUT",
            metavar="USD",
            help="for 1000 PUT requests",
            min=0,
        ),
    ] = None,
    listing: Annotated[
        float | None,
        typer.Option(
            "--price-list",
            envvar="REPLICATOR_PRICE_LIST",
            metavar="USD",
            help="for 1000 LIST requests",
            min=0,
        ),
    ] = None,
    get: Annotated[
        float | None,
        typer.Option(
            "--price-get",
            envvar="REPLICATOR_PRICE_GET",
            metavar="USD",
            help="for 1000 GET requests",
            min=0,
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Estimate the monthly bill, next to Litestream's scheme for the same workload.

    From what is stored and from the newest day of the log. No free tier, no traffic.
    """
    from replicator.inspect.cost import cost_at, own_prices

    report = cost_at(
        options.address(bucket, prefix, url, endpoint_url, region, profile),
        own_prices(gb_month=gb_month, put=put, listing=listing, get=get),
    )
    if as_json:
        output.emit_json(report)
    else:
        show(report)


def show(report: CostReport) -> None:
    """The workload, then a month of both schemes, then the bills."""
    work = report.workload
    output.say(f"[bold]{output.safe(report.url)}[/], an estimate")
    output.facts(
        [
            (
                "stored",
                f"log {output.size(report.log_bytes)}, merged "
                f"{output.size(report.merged_bytes)}, snapshots "
                f"{output.size(report.snapshot_bytes)}",
            ),
            (
                "a day",
                f"{work.transactions:,.0f} transactions in {work.active[1]:,.0f} seconds of "
                f"activity, {output.size(work.log_bytes)} of log",
            ),
        ]
    )
    output.say()
    output.table(
        ("a month", ">stored", ">PUT", ">LIST", ">GET"),
        [("replicator", *_usage(report.ours)), ("Litestream's scheme", *_usage(report.litestream))],
    )
    output.say()
    output.table(
        ("USD a month", ">replicator", ">of it storage", ">Litestream's scheme", ">of it storage "),
        [_bill(*pair) for pair in report.bills],
    )
    output.say()
    for source in report.sources:
        output.say(f"[dim]{output.safe(source)}[/]")


def _usage(usage: Usage) -> tuple[str, ...]:
    return (
        output.size(usage.stored_bytes),
        f"{usage.puts:,.0f}",
        f"{usage.lists:,.0f}",
        f"{usage.gets:,.0f}",
    )


def _bill(ours: Bill, theirs: Bill) -> tuple[str, ...]:
    return (
        output.safe(ours.store),
        f"{ours.total:.2f}",
        f"{ours.storage:.2f}",
        f"{theirs.total:.2f}",
        f"{theirs.storage:.2f}",
    )
