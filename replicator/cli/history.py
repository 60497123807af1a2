"""``replicator history``: the archive of a database, and the transactions it can restore."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.cli import options, output, timeline
from replicator.cli.commits import Commits, list_commits
from replicator.errors import NoBackup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replicator.archive.events import Event
    from replicator.archive.index import PinnedPoint
    from replicator.archive.reachable import Ranges
    from replicator.inspect.history import History
    from replicator.store.address import StoreAddress


def command(*, location: options.Location, wanted: Commits, as_json: options.AsJson = False) -> int:
    """List the archives in the bucket, and the transactions that can be restored.

    Without --prefix, list every database in the bucket. Exit code 9 if one of them has no backup.
    With any option about commits, list those of one database. The pages that a commit wrote show
    its tables: this reads the WAL objects since the snapshot before, and a few blocks of that
    snapshot. A page that cannot be assigned to a table counts as unknown.
    """
    if wanted.any:
        list_commits(location.address, wanted, as_json=as_json)
        return 0
    return _every(location.address, as_json=as_json)


def _every(target: StoreAddress, *, as_json: bool) -> int:
    """Show the databases as they are found; the exit code. Memory does not grow with them."""
    from replicator.inspect.history import histories

    code = 0

    def found() -> Iterator[History | NoBackup]:
        nonlocal code
        for each in histories(target):
            code = each.exit_code if isinstance(each, NoBackup) else code
            yield each

    output.results(found(), _show_or_name, as_json=as_json)
    return code


def _show_or_name(found: History | NoBackup) -> None:
    if isinstance(found, NoBackup):
        output.say(f"[bold]{output.safe(found.url)}[/]\n  no backup\n")
    else:
        show(found)


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
            *(("pinned", "  ".join(filter(None, _pin(pin)))) for pin in found.pins),
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


def _pin(pin: PinnedPoint) -> tuple[str, ...]:
    return f"transaction {pin.txid:,}", pin.name, output.safe(pin.note)


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
