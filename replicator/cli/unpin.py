"""``replicator unpin``: leave a restore point to the rules of retention again."""

from __future__ import annotations

from typing import Annotated

import typer

from replicator.cli import options, output


def command(
    *,
    txid: Annotated[int, typer.Argument(metavar="TXID", min=1, help="the transaction")],
    location: options.Location,
    as_json: options.AsJson = False,
) -> None:
    """Unpin a transaction: the rules of retention decide again whether it stays."""
    from replicator.retention.api import unpin

    unpin(location.address, txid)
    output.result(
        {"unpinned": txid},
        lambda _: output.say(f"transaction {txid:,} is no longer pinned"),
        as_json=as_json,
    )
