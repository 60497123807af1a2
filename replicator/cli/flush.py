"""``replicator flush``: have everything committed so far in the bucket, now."""

from __future__ import annotations

from typing import Annotated

import typer

from replicator.cli import options, output
from replicator.cli.sidecar import Answer, ask, ask_all, worst
from replicator.model import Position


def command(
    db: options.DatabaseOfMany = None,
    config: options.ConfigFile = None,
    cache_dir: options.CacheDir = None,
    timeout: options.Timeout = None,
    snapshot: Annotated[
        bool,
        typer.Option(
            "--snapshot", envvar="REPLICATOR_FLUSH_SNAPSHOT", help="take a snapshot as well"
        ),
    ] = False,
    as_json: options.AsJson = False,
) -> int:
    """Wait until all commits so far are in the bucket.

    With --config of every database; the exit code is that of the first that failed.
    """
    request = {"command": "flush", "timeout": timeout, "snapshot": snapshot}
    if db is None and config is not None:
        return _flush_all(ask_all(config, request), as_json=as_json)
    position = Position(**ask(options.named(db), cache_dir, request))
    if as_json:
        output.emit_json(position)
    else:
        output.say(f"[green]durable[/] up to transaction {position.txid:,}")
    return 0


def _flush_all(answers: list[Answer], *, as_json: bool) -> int:
    if as_json:
        output.emit_json([answer.document() for answer in answers])
        return worst(answers)
    for each in answers:
        if each.error is None:
            output.say(
                f"[green]durable[/] up to transaction {each.answer['txid']:,}  "
                f"{output.safe(each.database)}"
            )
        else:
            output.say(
                f"[bold red]not durable[/]: {output.safe(str(each.error))}  "
                f"{output.safe(each.database)}"
            )
    return worst(answers)
