"""No replicator at all: what the application does by itself."""

from __future__ import annotations

from pathlib import Path

from benchmarks.systems.base import System


class Alone(System):
    name = "alone"

    def commands(self) -> list[list[str]]:
        return []

    def ready(self, database: Path) -> bool:
        return True

    def flush(self, database: Path) -> None:
        """There is nobody to wait for."""

    def restore_command(self, database: Path, output: Path, at: str | None) -> list[str]:
        raise NotImplementedError
