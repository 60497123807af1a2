"""``replicator pin``: keep a restore point regardless of the rules, or list the pins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from replicator.cli import options, output

if TYPE_CHECKING:
    from replicator.archive.index import PinnedPoint


def command(
    *,
    txid: Annotated[
        int | None,
        typer.Argument(metavar="[TXID]", min=1, help="the transaction; default: list the pins"),
    ] = None,
    note: Annotated[
        str, typer.Option("--note", metavar="TEXT", help="the reason, shown in lists")
    ] = "",
    location: options.Location,
    as_json: options.AsJson = False,
) -> None:
    """Keep a transaction restorable until it is unpinned; without TXID list the pins."""
    from replicator.retention.api import pin, pins

    if txid is not None:
        pin(location.address, txid, note)
    output.result(pins(location.address), show, as_json=as_json)


def show(pins: Sequence[PinnedPoint]) -> None:
    """A row for each pin."""
    if not pins:
        output.say("no transaction is pinned")
        return
    rows = [(f"{each.txid:,}", output.safe(each.note)) for each in pins]
    output.table((">transaction", "note"), rows)
