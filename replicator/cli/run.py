"""``replicator run``: replicate one database, or those of a file, alone or around a command."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from replicator.cli import options
from replicator.sidecar.launch import RunRequest


def command(
    context: typer.Context,
    *,
    db: options.DatabaseOrNone = None,
    cmd: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- CMD …]", help="run this command and end when it ends"),
    ] = None,
    config: options.Config = None,
    settings: options.RunSettings,
    as_json: options.AsJson = False,
) -> int:
    """Replicate DB, or the databases of a file, to the bucket until SIGTERM.

    SIGTERM uploads what is left, then ends the process. The exit code is 0 only if everything is in
    the bucket; around a command it is the exit code of the command if that is not 0.
    """
    given = settings.given
    if config is None:
        given["db_path"] = options.named(db)
    else:
        cmd = options.command_with_config(db, cmd, context)
    file = None if config is None else os.fspath(config)
    code: int = context.obj(RunRequest(given, file, cmd or None, as_json=as_json))
    return code
