"""``replicator mark``: make the present state durable, and keep it under a name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from replicator.cli import options, output
from replicator.cli.sidecar import Answer, ask, ask_all, worst
from replicator.config.settings import SETTINGS
from replicator.errors import ConfigError, NotRunning


def command(
    context: typer.Context,
    *,
    db: options.DatabaseOrNone = None,
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="the name, for example before-migration"),
    ] = None,
    config: options.Config = None,
    note: Annotated[
        str, typer.Option("--note", metavar="TEXT", help="the reason, shown in lists")
    ] = "",
    move: Annotated[
        bool, typer.Option("--move", help="take the name from the transaction that has it")
    ] = False,
    cache_dir: options.CacheDir = None,
    timeout: options.Timeout = None,
    as_json: options.AsJson = False,
) -> int:
    """Wait until all commits so far are in the bucket, and pin that state under NAME.

    It stays restorable until it is unpinned, whatever the rules of retention are. --at NAME finds
    it in every command. The running sidecar does the work. With --config, each database of the
    file gets the name, one soon after another; the exit code is that of the first failure.
    """
    db, name = _words(context, db, name, config)
    request = {"command": "mark", "name": name, "note": note, "move": move, "timeout": timeout}
    if file := options.file_of(context, db, config):
        return _mark_all(ask_all(file, request), name, as_json=as_json)
    answer = _ask(options.named(db), cache_dir, request)
    output.result(
        {"name": name} | answer, lambda _: output.say(_marked(name, answer)), as_json=as_json
    )
    return 0


def _words(
    context: typer.Context, db: str | None, name: str | None, config: Path | None
) -> tuple[str | None, str]:
    """The database and the name; one word alone is the name, of the database in the variable or of
    all in the file."""
    if name is not None:
        return db, name
    if db is None or options.from_variable(context, "db"):
        raise ConfigError("no name is given", hint="replicator mark app.db before-migration")
    variable = os.environ.get(SETTINGS["db_path"].variable)
    return (variable or None) if config is None else None, db


def _mark_all(answers: list[Answer], name: str, *, as_json: bool) -> int:
    if as_json:
        output.emit_json([{"name": name} | answer.document() for answer in answers])
        return worst(answers)
    for each in answers:
        state = (
            _marked(name, each.answer)
            if each.error is None
            else f"[bold red]not marked[/]: {output.safe(str(each.error))}"
        )
        output.say(f"{state}  {output.safe(each.database)}")
    return worst(answers)


def _marked(name: str, answer: dict[str, Any]) -> str:
    return (
        f"[green]marked[/] {output.safe(name)}: transaction {answer['txid']:,} is durable and "
        "pinned"
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
