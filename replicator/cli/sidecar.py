"""Requests to the sidecar of a database, through the socket in its cache directory."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from replicator.cli import options, output
from replicator.errors import NotRunning, ReplicatorError, from_dict

PARALLEL = 16  # databases that are asked at the same time


@dataclass(frozen=True)
class Answer:
    """The answer of the sidecar of one database, or the error in its place."""

    database: str
    url: str
    answer: dict[str, Any] = field(default_factory=dict)
    error: ReplicatorError | None = None

    def document(self) -> dict[str, Any]:
        """For programs."""
        content = self.answer if self.error is None else self.error.to_dict()
        return {"database": self.database, "url": self.url, **content}


def ask(db: str | Path, cache_dir: str | None, request: dict[str, Any]) -> dict[str, Any]:
    """The sidecar's answer to one request; raises its error, or ``NotRunning``."""
    from replicator.config.settings import SqliteReplicatorConfig
    from replicator.sidecar.control_client import ask as ask_sidecar

    # the request needs the cache directory only, and that does not depend on the store
    config = SqliteReplicatorConfig(db_path=db, cache_dir=cache_dir, url="file:///")
    return ask_sidecar(config.cache, request)


def ask_all(file: Path, request: dict[str, Any]) -> list[Answer]:
    """The answer for each database that the file names or its sidecar replicates, asked in
    parallel; ``NotRunning`` if there is none.

    The sidecar knows those that vanished since, the file those that it does not replicate.
    """
    from concurrent.futures import ThreadPoolExecutor

    from replicator.sidecar.control_client import ask as ask_sidecar

    def one(listed: dict[str, Any]) -> Answer:
        name, url = listed["database"], listed["url"]
        try:
            if "error" in listed:
                raise from_dict(listed["error"])
            answer: dict[str, Any] = ask_sidecar(Path(listed["cache"]), request)
        except ReplicatorError as error:
            return Answer(name, url, error=error)
        return Answer(name, url, answer)

    listing = _listing(file)
    if not listing:
        raise NotRunning(f"no database of {file} exists, and no sidecar answers", path=file)
    with ThreadPoolExecutor(PARALLEL) as pool:
        return list(pool.map(one, listing))


def _listing(file: Path) -> list[dict[str, Any]]:
    """The databases of the file, each of its sidecars, and their problems; each once."""
    from replicator.config.file import ConfigFile, Search

    search = Search(ConfigFile.load(file))
    listed: dict[str, dict[str, Any]] = {}
    for config in search.look()[0]:
        own = {"database": str(config.source), "url": config.address.url}
        listed[str(config.cache)] = own | {"cache": str(config.cache)}
    for name, error in search.problems:
        listed[name] = {"database": name, "url": "", "error": error.to_dict()}
    covered: set[str] = set()  # by the answer of a sidecar: one answer covers all of its databases
    for cache in [*(each["cache"] for each in listed.values() if "cache" in each), *search.caches]:
        for each in _databases_of(Path(cache)) if cache not in covered else ():
            key = each.get("cache") or each["database"]
            covered.add(key)
            listed.setdefault(key, each)
    return list(listed.values())


def _databases_of(cache: Path) -> list[dict[str, Any]]:
    """All databases of the sidecar that answers in a cache directory; none without one."""
    from replicator.sidecar.control_client import ask as ask_sidecar

    try:
        return list(ask_sidecar(cache, {"command": "databases"})["databases"])
    except ReplicatorError:
        return []


def worst(answers: list[Answer]) -> int:
    """The exit code of the first database that answered with an error, else 0."""
    return next((answer.error.exit_code for answer in answers if answer.error), 0)


@dataclass(frozen=True, slots=True)
class LocalSidecar(options.Options):
    """The sidecar that learns the result of a check, if the command names its database."""

    database: Annotated[
        str | None,
        options.option(
            "--database",
            envvar="REPLICATOR_DB_PATH",
            metavar="DB",
            help="the local database, if its sidecar runs here; the command reports to the sidecar",
        ),
    ] = None
    cache_dir: str | None = None

    def repair(self) -> dict[str, Any]:
        """Have the sidecar check the newest state, and repair the archive if it is not restorable.

        The answer or the error under the key ``repair``; nothing without a database.
        """
        if self.database is None:
            return {}
        try:
            return {"repair": ask(self.database, self.cache_dir, {"command": "repair"})}
        except ReplicatorError as error:
            return {"repair": {"error": str(error)}}

    def report_drill(self) -> None:
        """Report a successful drill; does nothing if no sidecar runs."""
        if self.database is not None:
            with contextlib.suppress(ReplicatorError):
                ask(self.database, self.cache_dir, {"command": "proofs"})


def show_repair(answer: dict[str, Any]) -> None:
    """The result of :meth:`LocalSidecar.repair` as one line, or as none."""
    match answer.get("repair"):
        case {"error": str(reason)}:
            output.say(f"[bold red]not repaired:[/] {output.safe(reason)}")
        case {"txid": int(txid), "action": "none"}:
            output.say(f"[green]no repair needed[/]: transaction {txid:,} is restorable")
        case {"txid": int(txid), "action": str(action)}:
            output.say(
                f"[green]repaired[/] with a new {action}: every transaction from {txid:,} is "
                "restorable"
            )
