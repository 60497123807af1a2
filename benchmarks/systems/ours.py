"""This project: one sidecar (``replicator run``), with a file that names them for several
databases."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from benchmarks.place import ROOT
from benchmarks.systems.base import System
from replicator.errors import NotRunning
from replicator.sidecar.control_client import ask


class Replicator(System):
    name = "replicator"

    def commands(self) -> list[list[str]]:
        pace = ["--sync-interval", self.sync_interval] if self.sync_interval else []
        run = [sys.executable, "-m", "replicator", "run"]
        if len(self.databases) == 1:
            return [[*run, str(self.databases[0]), *self._place(self.databases[0]), *pace]]
        return [[*run, "--config", str(self._written()), *pace]]

    def _written(self) -> Path:
        """The file that names the databases."""
        text = (
            f'bucket = "{self.place.server.bucket}"\nendpoint_url = "{self.place.url}"\n'
            f'prefix = "{self.prefix}"\n'
        )
        path = self.directory / "replicator.toml"
        path.write_text(
            text + "".join(f'[[database]]\npath = "{database}"\n' for database in self.databases)
        )
        return path

    def _place(self, database: Path) -> list[str]:
        return [
            "--bucket",
            self.place.server.bucket,
            "--endpoint-url",
            self.place.url,
            "--prefix",
            f"{self.prefix}/{database.name}",
        ]

    def environment(self) -> dict[str, str]:
        return {**self.place.environment(), "PYTHONPATH": str(ROOT)}

    def _ask(self, database: Path, **request: object) -> dict:
        return ask(database.with_name(f".{database.name}-replicator"), dict(request))

    def ready(self, database: Path) -> bool:
        with contextlib.suppress(NotRunning):
            status = self._ask(database, command="status")
            return status["last_snapshot"] is not None and status["healthy"]
        return False

    def flush(self, database: Path) -> None:
        self._ask(database, command="flush")

    def own_figures(self) -> dict[str, float]:
        found = [self._ask(database, command="metrics") for database in self.databases]
        return {
            "write lock holds": sum(one["write_lock_holds"] for one in found),
            "longest write lock ms": max(one["longest_write_lock_ms"] for one in found),
        }

    def restore_command(self, database: Path, output: Path, at: str | None) -> list[str]:
        return [
            sys.executable,
            "-m",
            "replicator",
            "restore",
            *self._place(database),
            "--output",
            str(output),
            *(["--timestamp", at] if at else []),
        ]

    def is_commit_object(self, target: str) -> bool:
        return "/wal/" in target
