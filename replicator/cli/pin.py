"""``replicator pin``: keep a restore point whatever the rules say, or list those that are."""

from __future__ import annotations

from typing import Annotated

import typer

from replicator.cli import options, output


def command(
    txid: Annotated[
        int | None,
        typer.Argument(metavar="[TXID]", min=1, help="the transaction; default: list"),
    ] = None,
    note: Annotated[str, typer.Option(metavar="TEXT", help="why, for people")] = "",
    bucket: options.Bucket = "",
    prefix: options.Prefix = "",
    url: options.Url = "",
    endpoint_url: options.EndpointUrl = None,
    region: options.Region = None,
    profile: options.Profile = None,
    as_json: options.AsJson = False,
) -> None:
    """Keep a transaction restorable until it is unpinned; without TXID list what is pinned."""
    from replicator.retention.api import pin, pins

    address = options.address(bucket, prefix, url, endpoint_url, region, profile)
    if txid is not None:
        pin(address, txid, note)
    found = pins(address)
    if as_json:
        output.emit_json([output.plain(each) for each in found])
    elif not found:
        output.say("nothing is pinned")
    else:
        output.table(
            (">transaction", "note"), ((f"{each.txid:,}", output.safe(each.note)) for each in found)
        )
