"""``replicator cost``: the monthly bill at list prices."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

from replicator.cli import options, output

if TYPE_CHECKING:
    from replicator.inspect.cost import Bill, CostReport, Usage


def _price(of: str, help: str) -> Any:  # noqa: A002 - the word of typer
    return options.option(f"--price-{of}", metavar="USD", help=help, min=0)


@dataclass(frozen=True, slots=True)
class OwnPrices(options.Options):
    """The prices of a user, in USD."""

    gb_month: Annotated[float | None, _price("gb-month", "price of one GB stored for a month")] = (
        None
    )
    put: Annotated[float | None, _price("put", "price of 1000 PUT requests")] = None
    listing: Annotated[float | None, _price("list", "price of 1000 LIST requests")] = None
    get: Annotated[float | None, _price("get", "price of 1000 GET requests")] = None


def command(
    *, location: options.Location, prices: OwnPrices, as_json: options.AsJson = False
) -> None:
    """Estimate the monthly bill, next to that of Litestream for the same workload.

    The estimate uses the stored objects and the newest day of the archive. It includes neither a
    free tier nor traffic.
    """
    from replicator.inspect.cost import cost_at, own_prices

    report = cost_at(location.address, own_prices(**asdict(prices)))
    output.result(report, show, as_json=as_json)


def show(report: CostReport) -> None:
    """The workload, then a month of both programs, then the bills."""
    work = report.workload
    output.say(f"[bold]{output.safe(report.url)}[/], an estimate")
    output.facts(
        [
            (
                "stored",
                f"segments {output.size(report.log_bytes)}, merges "
                f"{output.size(report.merged_bytes)}, snapshots "
                f"{output.size(report.snapshot_bytes)}",
            ),
            (
                "a day",
                f"{work.transactions:,.0f} transactions in {work.active[1]:,.0f} seconds of "
                f"activity, {output.size(work.log_bytes)} of segments",
            ),
        ]
    )
    output.say()
    output.table(
        ("a month", ">stored", ">PUT", ">LIST", ">GET"),
        [("replicator", *_usage(report.ours)), ("Litestream", *_usage(report.litestream))],
    )
    output.say()
    output.table(
        ("USD a month", ">replicator", ">storage", ">Litestream", ">storage "),
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
