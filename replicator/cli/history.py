"""``replicator history``: what the bucket holds of a database."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from replicator.cli import options, output, timeline

if TYPE_CHECKING:
    from replicator.archive.events import Event
    from replicator.archive.reachable import Ranges
    from replicator.inspect.history import History
    from replicator.inspect.transactions import Transaction
    from replicator.store.address import StoreAddress


def command(
    bucket: options.Bucket = "",
    prefix: options.Prefix = "",
    url: options.Url = "",
    endpoint_url: options.EndpointUrl = None,
    region: options.Region = None,
    profile: options.Profile = None,
    transactions: Annotated[
        bool,
        typer.Option(
            "--transactions",
            envvar="REPLICATOR_TRANSACTIONS",
            help="list the commits of one database, newest first",
        ),
    ] = False,
    limit: Annotated[
        int,
        typer.Option(
            envvar="REPLICATOR_LIMIT", metavar="N", min=0, help="of the commits, so many; 0: all"
        ),
    ] = 50,
    as_json: options.AsJson = False,
) -> None:
    """List what the bucket holds and what can be restored.

    Without --prefix, of every database in the bucket.
    """
    from replicator.inspect.history import histories

    address = options.address(bucket, prefix, url, endpoint_url, region, profile)
    if transactions:
        _commits(address, limit or None, as_json=as_json)
        return
    found = histories(address)
    if as_json:
        output.emit_json([output.plain(each) for each in found])
    else:
        for each in found:
            show(each)


def _commits(address: StoreAddress, limit: int | None, *, as_json: bool) -> None:
    from replicator.archive.locate import opened
    from replicator.inspect.transactions import transactions

    with opened(address) as (store, prefix):
        rows = islice(transactions(store, prefix), limit)
        if as_json:
            output.emit_json([output.plain(row) for row in rows])
        else:
            output.table(
                (">transaction", "committed", ">frames", ">log", "note"), map(_commit, rows)
            )


def _commit(each: Transaction) -> tuple[str, ...]:
    one = each.first_txid == each.txid
    name = f"{each.txid:,}" if one else f"{each.first_txid:,} … {each.txid:,}"
    what = {
        "commit": "",
        "step": "kept as one step",
        "start": "a generation begins",
        "catch-up": "caught up after a gap",
        "missing": "[bold red]missing[/]",
    }[each.kind]
    at = "" if each.committed_ms is None else output.moment(each.committed_ms)
    return name, at, f"{each.frames:,}", output.size(each.bytes), what


def show(found: History, *, now: float | None = None) -> None:
    """The window first, then what it is made of, oldest first."""
    output.say(f"[bold]{output.safe(found.url)}[/]")
    newest = output.moment(found.last_commit_ms) if found.last_commit_ms else "at an unknown time"
    output.facts(
        [
            ("restorable", _restorable(found.restorable)),
            ("newest commit", f"{newest}, {output.ago(found.last_commit_ms, now)}"),
            ("last append", output.ago(found.last_stored_ms, now)),
            (
                "log",
                f"{output.plural(found.segments, 'segment')}, {output.size(found.segment_bytes)}",
            ),
            (
                "merged log",
                f"{output.plural(found.merged, 'object')}, {output.size(found.merged_bytes)}",
            ),
            (
                "snapshots",
                f"{output.plural(len(found.snapshots), 'object')}, "
                f"{output.size(found.snapshot_bytes)}",
            ),
            ("total", output.size(found.total_bytes)),
            ("proven", _proven(found, now)),
            *(
                ("pinned", f"transaction {pin.txid:,}  {output.safe(pin.note)}".rstrip())
                for pin in found.pins
            ),
        ]
    )
    output.say()
    for line in timeline.draw(found, output.console().width):
        output.say(output.safe(line))
    output.say()
    output.table(
        ("generation", ">from", ">to", ">snapshots", ">size"),
        (
            (
                each.id,
                f"{each.first_txid:,}",
                f"{each.last_txid:,}",
                f"{each.snapshots:,}",
                output.size(each.size),
            )
            for each in found.generations
        ),
    )
    output.say()
    for each in found.events:
        output.say(f"[dim]event[/]  {output.safe(_event(each))}")
    output.say()
    output.table(
        ("snapshot of", "stored", ">size", "generation"),
        (
            (
                f"{each.txid:,}",
                output.moment(each.stored_ms),
                output.size(each.size),
                each.generation,
            )
            for each in found.snapshots
        ),
    )


RUNS = 3  # of transactions without a gap, worth naming one by one
EVENTS = {
    "generation": "a generation begins",
    "catch-up": "caught up",
    "merge-newest": "kept as one step",
}


def _event(each: Event) -> str:
    """What happened to the log at a transaction, why, and by whom."""
    by = f", by {each.host}" if each.host else ""
    return (
        f"{output.moment(each.at_ms)}  transaction {each.txid:,}: {EVENTS[each.kind]}; "
        f"{each.reason or 'the store does not tell why'}{by}"
    )


def _restorable(ranges: Ranges) -> str:
    """The newest run of transactions first; what a rule kept single is counted."""
    runs = [each for each in ranges if each[0] < each[1]][::-1]
    single = [first for first, last in ranges if first == last]
    told = [f"{first:,} … {last:,}" for first, last in runs[:RUNS]]
    if len(runs) > RUNS:
        told.append(f"{output.plural(len(runs) - RUNS, 'older run')}")
    if single:
        told.append(
            f"{single[0]:,}"
            if len(single) == 1
            else f"{len(single):,} single ones from {single[0]:,} to {single[-1]:,}"
        )
    return f"transactions {', '.join(told)}" if runs else f"transaction {', '.join(told)}"


def _proven(found: History, now: float | None) -> str:
    if found.proven is None:
        return "never; replicator drill restores and checks"
    return f"transaction {found.proven.txid:,} was restored {output.ago(found.proven.at_ms, now)}"
