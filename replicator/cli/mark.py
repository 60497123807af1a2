"""``replicator mark``: make the present state durable, and keep it under a name."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from replicator.cli import options, output
from replicator.cli.sidecar import ask
from replicator.errors import NotRunning


def command(
    *,
    db: options.Database,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="the name, for example before-migration"),
    ],
    note: Annotated[
        str, typer.Option("--note", metavar="TEXT", help="the reason, shown in lists")
    ] = "",
    move: Annotated[
        bool, typer.Option("--move", help="take the name from the transaction that has it")
    ] = False,
    cache_dir: options.CacheDir = None,
    timeout: options.Timeout = None,
    as_json: options.AsJson = False,
) -> None:
    """Wait until all commits so far are in the bucket, and pin that state under NAME.

    It stays restorable until it is unpinned, whatever the rules of retention are. --at NAME finds
    it in every command. The running sidecar does the work.
    """
    request = {"command": "mark", "name": name, "note": note, "move": move, "timeout": timeout}
    answer = _ask(db, cache_dir, request)
    output.result(
        {"name": name} | answer,
        lambda _: output.say(
            f"[green]marked[/] {output.safe(name)}: transaction {answer['txid']:,} is durable and "
            "pinned"
        ),
        as_json=as_json,
    )


def _ask(db: str, cache_dir: str | None, request: dict[str, Any]) -> dict[str, Any]:
    try:
        return ask(db, cache_dir, request)
    except NotRunning as error:
        error.hint = (
            "start one with `replicator run`; or name a transaction that is in the bucket: "
            "replicator pin newest --name NAME"
        )
        raise
