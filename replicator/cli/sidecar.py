"""How a command reaches the sidecar of a database: by the socket in its cache directory."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replicator.cli import output
from replicator.errors import ReplicatorError

if TYPE_CHECKING:
    from replicator.config.settings import SqliteReplicatorConfig

AT_ONCE = 16  # databases that are asked at the same time


@dataclass(frozen=True)
class Answer:
    """Of one database of several: what was answered, or why nothing was."""

    database: str
    url: str
    answer: dict[str, Any] = field(default_factory=dict)
    error: ReplicatorError | None = None

    def document(self) -> dict[str, Any]:
        """For programs."""
        if self.error is None:
            return {"database": self.database, "url": self.url, **self.answer}
        return {
            "database": self.database,
            "url": self.url,
            "error": str(self.error),
            "kind": type(self.error).__name__,
        }


def ask(db: Path, cache_dir: Path | None, request: dict[str, Any]) -> dict[str, Any]:
    """The sidecar's answer to one request; the library's errors otherwise."""
    from replicator.config.settings import SqliteReplicatorConfig
    from replicator.sidecar.control_client import ask as ask_sidecar

    # only the place of the cache is of interest, and it does not depend on the store
    config = SqliteReplicatorConfig(db_path=db, cache_dir=cache_dir, url="file:///")
    return ask_sidecar(config.cache, request)


def ask_all(file: Path, request: dict[str, Any]) -> list[Answer]:
    """What the sidecar says of each database of a file, all asked at once, in the file's order."""
    from concurrent.futures import ThreadPoolExecutor

    from replicator.config.file import ConfigFile
    from replicator.sidecar.control_client import ask as ask_sidecar

    def one(config: SqliteReplicatorConfig) -> Answer:
        try:
            answer: dict[str, Any] = ask_sidecar(config.cache, request)
        except ReplicatorError as error:
            return Answer(str(config.database), config.address.url, error=error)
        return Answer(str(config.database), config.address.url, answer)

    configs = ConfigFile.load(file).configs()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, configs))


def worst(answers: list[Answer]) -> int:
    """The exit code of the first database that answered with an error; 0: none did."""
    return next((answer.error.exit_code for answer in answers if answer.error), 0)


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
            output.say(
                f"[green]repaired[/] by a new {action}: from transaction {txid:,} on "
                "everything can be restored"
            )
