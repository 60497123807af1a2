"""What people do without a replicator: copy the database, upload the copy.

    python -m benchmarks.systems.copies backup|vacuum|zstd DB URL BUCKET KEY
    python -m benchmarks.systems.copies fetch FILE URL BUCKET KEY

``backup`` is the shell's ``.backup`` (the same API), ``vacuum`` is VACUUM INTO, each followed by
boto3's upload_file, which is what ``aws s3 cp`` does; ``zstd`` compresses (level 3) in between.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from pathlib import Path

import zstandard

from benchmarks import measure
from benchmarks.measure import Failed, Ran
from benchmarks.place import ROOT
from benchmarks.systems.base import System


class Copy(System):
    """One copy at the start; nothing is followed."""

    way: str

    def commands(self) -> list[list[str]]:
        return []

    def environment(self) -> dict[str, str]:
        return {**self.place.environment(), "PYTHONPATH": str(ROOT)}

    def _command(self, way: str, database: Path, file: Path) -> list[str]:
        return [
            sys.executable,
            "-m",
            "benchmarks.systems.copies",
            way,
            str(file),
            self.place.url,
            self.place.server.bucket,
            f"{self.prefix}/{database.name}",
        ]

    def copy(self, database: Path) -> Ran:
        """Make the copy and upload it; the cost of all of it."""
        return measure.run(
            self._command(self.way, database, database), self.environment(), self.directory
        )

    def ready(self, database: Path) -> bool:
        return True

    def flush(self, database: Path) -> None:
        """A copy is never behind: it is what it is."""

    def restore_command(self, database: Path, output: Path, at: str | None) -> list[str]:
        if at is not None:
            raise Failed(f"{self.name} has one point in time")
        return self._command("unzstd" if self.way == "zstd" else "fetch", database, output)


class Backup(Copy):
    name, way = "backup + upload", "backup"


class Vacuum(Copy):
    name, way = "vacuum into + upload", "vacuum"


class Compressed(Copy):
    name, way = "backup + zstd -3 + upload", "zstd"


def _copied(way: str, database: Path) -> Path:
    target = database.with_suffix(".copy")
    target.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(database)) as source:
        if way == "vacuum":
            source.execute("VACUUM INTO ?", (str(target),))
            return target
        with contextlib.closing(sqlite3.connect(target)) as other:
            source.backup(other)
    if way == "zstd":
        return _through(zstandard.ZstdCompressor(level=3), target, target.with_suffix(".zst"))
    return target


def _through(
    codec: zstandard.ZstdCompressor | zstandard.ZstdDecompressor, source: Path, target: Path
) -> Path:
    with source.open("rb") as given, target.open("wb") as made:
        codec.copy_stream(given, made)
    source.unlink()
    return target


def main(way: str, file: str, url: str, bucket: str, key: str) -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=url)
    if way == "fetch":
        client.download_file(bucket, key, file)
    elif way == "unzstd":
        client.download_file(bucket, key, f"{file}.zst")
        _through(zstandard.ZstdDecompressor(), Path(f"{file}.zst"), Path(file))
    else:
        copy = _copied(way, Path(file))
        client.upload_file(str(copy), bucket, key)
        os.unlink(copy)


if __name__ == "__main__":
    main(*sys.argv[1:])
