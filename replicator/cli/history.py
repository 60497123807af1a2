"""``replicator history``: the archive of a database, and the transactions it can restore."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated

from replicator.cli import options, output, timeline

if TYPE_CHECKING:
    from replicator.archive.events import Event
    from replicator.archive.reachable import Ranges
    from replicator.inspect.history import History
    from replicator.inspect.transactions import Transaction
    from replicator.store.address import StoreAddress


def command(
    *,
    location: options.Location,
    transactions: Annotated[
        bool,
        options.option("--transactions", help="list the commits of one database, newest first"),
    ] = False,
    limit: Annotated[
        int,
        options.option(
            "--limit", metavar="N", min=0, help="maximum number of commits to list; 0: no limit"
        ),
    ] = 50,
    as_json: options.AsJson = False,
) -> None:
    """List the archives in the bucket, and the transactions that can be restored.

    Without --prefix, list every database in the bucket.
    """
    from replicator.inspect.history import histories

    if transactions:
        _commits(location.address, limit or None, as_json=as_json)
        return
    output.result(
        list(histories(location.address)), lambda found: [*map(show, found)], as_json=as_json
    )


def _commits(target: StoreAddress, limit: int | None, *, as_json: bool) -> None:
    from replicator.archive.locate import open_archive
    from replicator.inspect.transactions import transactions

    with open_archive(target) as (store, prefix):
        rows = list(islice(transactions(store, prefix), limit))
        columns = (">transaction", "committed", ">frames", ">WAL", "note")
        output.result(rows, lambda rows: output.table(columns, map(_commit, rows)), as_json=as_json)


def _commit(each: Transaction) -> tuple[str, ...]:
    one = each.first_txid == each.txid
    name = f"{each.txid:,}" if one else f"{each.first_txid:,} … {each.txid:,}"
    note = {
        "commit": "",
        "step": "kept as one step",
        "start": "a generation begins",
        "catch-up": "caught up after a gap",
        "missing": "[bold red]missing[/]",
    }[each.kind]
    at = "" if each.committed_ms is None else output.moment(each.committed_ms)
    return name, at, f"{each.frames:,}", output.size(each.bytes), note


def show(found: History, *, now: float | None = None) -> None:
    """The restorable transactions first, then the objects behind them, oldest first."""
    output.say(f"[bold]{output.safe(found.url)}[/]")
    newest = output.moment(found.last_commit_ms) if found.last_commit_ms else "time unknown"
    output.facts(
        [
            ("restorable", _restorable(found.restorable)),
            ("newest commit", f"{newest}, {output.ago(found.last_commit_ms, now)}"),
            ("last upload", output.ago(found.last_stored_ms, now)),
            ("segments", output.amount(found.segments, "object", found.segment_bytes)),
            ("merges", output.amount(found.merged, "object", found.merged_bytes)),
            ("snapshots", output.amount(len(found.snapshots), "object", found.snapshot_bytes)),
            ("total", output.size(found.total_bytes)),
            ("verified", _verified(found, now)),
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


RUNS = 3  # of transactions without a gap that are listed, newest first
EVENTS = {
    "generation": "a generation begins",
    "catch-up": "caught up",
    "merge-newest": "kept as one step",
}


def _event(each: Event) -> str:
    """An event of the archive: its transaction, kind, reason and host."""
    by = f", by {each.host}" if each.host else ""
    return (
        f"{output.moment(each.at_ms)}  transaction {each.txid:,}: {EVENTS[each.kind]}; "
        f"{each.reason or 'reason unknown'}{by}"
    )


def _restorable(ranges: Ranges) -> str:
    """The newest runs of transactions first; single transactions are counted."""
    runs = [each for each in ranges if each[0] < each[1]][::-1]
    single = [first for first, last in ranges if first == last]
    parts = [f"{first:,} … {last:,}" for first, last in runs[:RUNS]]
    if len(runs) > RUNS:
        parts.append(f"{output.plural(len(runs) - RUNS, 'older run')}")
    if single:
        parts.append(
            f"{single[0]:,}"
            if len(single) == 1
            else f"{len(single):,} single ones from {single[0]:,} to {single[-1]:,}"
        )
    return f"transactions {', '.join(parts)}" if runs else f"transaction {', '.join(parts)}"


def _verified(found: History, now: float | None) -> str:
    if found.proven is None:
        return "never; see replicator drill"
    return f"transaction {found.proven.txid:,} was restored {output.ago(found.proven.at_ms, now)}"
