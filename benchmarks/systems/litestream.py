"""Litestream 0.5.17: one process for all databases, with the settings of its documentation."""

from __future__ import annotations

import contextlib
import shutil
import sys
from pathlib import Path

from benchmarks import measure
from benchmarks.measure import Failed
from benchmarks.systems.base import System

DATABASE = """
  - path: {database}{monitor}
    replica:
      type: s3
      bucket: {bucket}
      path: {path}
      endpoint: {url}
      region: us-east-1
      force-path-style: true{sync}
"""


def binary() -> str:
    """Beside the interpreter, where the wheel puts it. ``Failed`` without it."""
    found = shutil.which("litestream", path=str(Path(sys.executable).parent))
    if found is None:
        raise Failed("litestream is not installed; make bench installs it")
    return found


class Litestream(System):
    name = "litestream"

    @property
    def _config(self) -> Path:
        return self.directory / "litestream.yml"

    @property
    def _socket(self) -> Path:
        return self.directory / "litestream.sock"

    def commands(self) -> list[list[str]]:
        pace = self.sync_interval
        text = f"socket:\n  enabled: true\n  path: {self._socket}\ndbs:"
        for database in self.databases:
            text += DATABASE.format(
                database=database,
                bucket=self.place.server.bucket,
                path=f"{self.prefix}/{database.name}",
                url=self.place.url,
                monitor=f"\n    monitor-interval: {pace}" if pace else "",
                sync=f"\n      sync-interval: {pace}" if pace else "",
            )
        self._config.write_text(text)
        return [[binary(), "replicate", "-config", str(self._config)]]

    def _has(self, database: Path, level: str) -> bool:
        """Whether the level has an object; asked of the server itself, not of the proxy."""
        prefix = f"{self.prefix}/{database.name}/{level}/"
        with contextlib.closing(self.place.server.store()) as store:
            return next(iter(store.list(prefix)), None) is not None

    def ready(self, database: Path) -> bool:
        return self._has(database, "0009") and self._has(database, "0000")

    def warm(self, *, long: bool = False) -> None:
        """The first compaction of each level uploads the first snapshot once more: that of
        level 1 within 30 s, that of level 2 within 5 minutes."""
        level = "0002" if long else "0001"
        for database in self.databases:
            self._wait(lambda database=database: self._has(database, level))

    def flush(self, database: Path) -> None:
        measure.run(
            [binary(), "sync", "-wait", "-timeout", "600", "-socket", self._socket, database],
            self.environment(),
            self.directory,
        )

    def restore_command(self, database: Path, output: Path, at: str | None) -> list[str]:
        return [
            binary(),
            "restore",
            "-config",
            str(self._config),
            "-o",
            str(output),
            *(["-timestamp", at] if at else []),
            str(database),
        ]

    def is_commit_object(self, target: str) -> bool:
        return "/0000/" in target
