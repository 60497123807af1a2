"""``replicator unpin``: leave a restore point to the rules of retention again."""

from __future__ import annotations

from typing import Annotated

import typer

from replicator.cli import options, output
from replicator.errors import ConfigError


def command(
    *,
    which: Annotated[
        str,
        typer.Argument(metavar="TXID|NAME", help="the transaction, or one name of a pin"),
    ],
    location: options.Location,
    as_json: options.AsJson = False,
) -> None:
    """Unpin a transaction: the rules of retention decide again whether it stays.

    A TXID loses all of its names. A NAME goes alone if the transaction has another one, or was
    pinned without a name.
    """
    from replicator.archive.point import RestorePoint
    from replicator.retention.api import unpin

    point = RestorePoint.parse(which)
    if point.txid is None and not point.name:
        raise ConfigError(
            f"{which!r} is neither a transaction nor a name", hint="list them: replicator pin"
        )
    removed = unpin(location.address, point.txid or point.name)
    output.result(
        {"unpinned": removed[0].txid, "name": point.name},
        lambda _: output.say(_removed(point.name, removed[0].txid)),
        as_json=as_json,
    )


def _removed(name: str, txid: int) -> str:
    if name:
        return f"{name} is no longer a name of transaction {txid:,}"
    return f"transaction {txid:,} is no longer pinned"
