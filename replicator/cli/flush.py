"""``replicator flush``: upload every commit made so far, now."""

from __future__ import annotations

from typing import Annotated

import typer

from replicator.cli import options, output
from replicator.cli.sidecar import Answer, ask, ask_all, worst
from replicator.model import Position


def command(
    context: typer.Context,
    *,
    db: options.DatabaseOrNone = None,
    config: options.Config = None,
    cache_dir: options.CacheDir = None,
    timeout: options.Timeout = None,
    snapshot: Annotated[
        bool,
        options.option(
            "--snapshot", envvar="REPLICATOR_FLUSH_SNAPSHOT", help="take a snapshot as well"
        ),
    ] = False,
    as_json: options.AsJson = False,
) -> int:
    """Wait until all commits so far are in the bucket.

    With --config, flush every database of the file; the exit code is that of the first failure.
    """
    request = {"command": "flush", "timeout": timeout, "snapshot": snapshot}
    if file := options.file_of(context, db, config):
        return _flush_all(ask_all(file, request), as_json=as_json)
    position = Position(**ask(options.named(db), cache_dir, request))
    output.result(position, lambda position: output.say(_durable(position.txid)), as_json=as_json)
    return 0


def _flush_all(answers: list[Answer], *, as_json: bool) -> int:
    if as_json:
        output.emit_json([answer.document() for answer in answers])
        return worst(answers)
    for each in answers:
        state = (
            _durable(each.answer["txid"])
            if each.error is None
            else f"[bold red]not durable[/]: {output.safe(str(each.error))}"
        )
        output.say(f"{state}  {output.safe(each.database)}")
    return worst(answers)


def _durable(txid: int) -> str:
    return f"[green]durable[/] up to transaction {txid:,}"
