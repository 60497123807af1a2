"""How a command reaches the sidecar of a database: by the socket in its cache directory."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from replicator.cli import output
from replicator.errors import ReplicatorError


def ask(db: Path, cache_dir: Path | None, request: dict[str, Any]) -> dict[str, Any]:
    """The sidecar's answer to one request; the library's errors otherwise."""
    from replicator.config import SqliteReplicatorConfig
    from replicator.control import ask as ask_daemon

    # only the place of the cache is of interest, and it does not depend on the store
    config = SqliteReplicatorConfig(db_path=db, cache_dir=cache_dir, url="file:///")
    return ask_daemon(config.cache, request)


def ask_for_repair(db: Path, cache_dir: Path | None) -> dict[str, Any]:
    """Have the sidecar look whether the present can be restored, and see to it: what it did,
    or why nobody could."""
    try:
        return {"repair": ask(db, cache_dir, {"command": "repair"})}
    except ReplicatorError as error:
        return {"repair": {"error": str(error)}}


def tell_of_proof(db: Path, cache_dir: Path | None) -> None:
    """Let the sidecar know of a drill that worked; one that does not run need not know."""
    with contextlib.suppress(ReplicatorError):
        ask(db, cache_dir, {"command": "proofs"})


def show_repair(answer: dict[str, Any]) -> None:
    """What :func:`ask_for_repair` gave, in a line; nothing for nothing."""
    match answer.get("repair"):
        case {"error": str(reason)}:
            output.say(f"[bold red]not repaired:[/] {output.safe(reason)}")
        case {"txid": int(txid), "action": "none"}:
            output.say(f"[green]the present is sound[/]: transaction {txid:,} can be restored")
        case {"txid": int(txid), "action": str(action)}:
            output.say(f"[green]repaired[/] by a new {action}: from transaction {txid:,} on "
                       "everything can be restored")
