"""``replicator pin``: keep a restore point regardless of the rules, or list the pins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from replicator.cli import options, output
from replicator.errors import ConfigError

if TYPE_CHECKING:
    from replicator.archive.index import PinnedPoint


def command(
    *,
    point: Annotated[
        str | None,
        typer.Argument(
            metavar="[WHEN]",
            help="a txid, a time, newest, or the name of another pin; default: list the pins",
        ),
    ] = None,
    name: Annotated[
        str,
        typer.Option("--name", metavar="NAME", help="a name for it, which --at accepts everywhere"),
    ] = "",
    note: Annotated[
        str, typer.Option("--note", metavar="TEXT", help="the reason, shown in lists")
    ] = "",
    move: Annotated[
        bool, typer.Option("--move", help="take the name from the transaction that has it")
    ] = False,
    location: options.Location,
    as_json: options.AsJson = False,
) -> None:
    """Keep a transaction restorable until it is unpinned; without WHEN list the pins.

    To name the present state, use replicator mark, which makes it durable first.
    """
    from replicator.archive.point import RestorePoint
    from replicator.retention.api import pin, pinned

    if point is not None:
        when = RestorePoint.parse(point)
        pin(location.address, when, note=note, name=name, move=move)
    elif name or note or move:
        raise ConfigError("no transaction is named", hint="name it: replicator pin 4711 --name …")
    output.result(pinned(location.address), show, as_json=as_json)


def show(pins: Sequence[PinnedPoint]) -> None:
    """A row for each pin."""
    if not pins:
        output.say("no transaction is pinned")
        return
    rows = [(f"{each.txid:,}", each.name, output.safe(each.note)) for each in pins]
    output.table((">transaction", "name", "note"), rows)
