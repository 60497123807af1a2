"""``replicator unpin``: leave a restore point to the rules again."""

from __future__ import annotations

from typing import Annotated

import typer

from replicator.cli import options, output


def command(
    txid: Annotated[int, typer.Argument(metavar="TXID", min=1, help="the transaction")],
    bucket: options.Bucket = "",
    prefix: options.Prefix = "",
    url: options.Url = "",
    endpoint_url: options.EndpointUrl = None,
    region: options.Region = None,
    profile: options.Profile = None,
    as_json: options.AsJson = False,
) -> None:
    """Unpin a transaction: the rules decide whether it stays."""
    from replicator.retention.api import unpin

    unpin(options.address(bucket, prefix, url, endpoint_url, region, profile), txid)
    if as_json:
        output.emit_json({"unpinned": txid})
    else:
        output.say(f"transaction {txid:,} is no longer pinned")
