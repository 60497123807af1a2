"""``replicator flush``: have everything committed so far in the bucket, now."""

from __future__ import annotations

from typing import Annotated

import typer

from replicator.cli import options, output
from replicator.cli.sidecar import ask
from replicator.model import Position


def command(
    db: options.Database,
    cache_dir: options.CacheDir = None,
    timeout: options.Timeout = None,
    snapshot: Annotated[
        bool,
        typer.Option("--snapshot", envvar="REPLICATOR_FLUSH_SNAPSHOT",
                     help="take a snapshot as well"),
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Wait until all commits so far are in the bucket."""
    answer = ask(db, cache_dir, {"command": "flush", "timeout": timeout, "snapshot": snapshot})
    position = Position(**answer)
    if as_json:
        output.emit_json(position)
    else:
        output.say(f"[green]durable[/] up to transaction {position.txid:,}")
