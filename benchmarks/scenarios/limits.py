"""The raw limits of the machine: what nobody can beat, with the same half-random rows."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import zstandard

from benchmarks.scenarios.base import Case, Effort, Figures, Trial
from benchmarks.systems.alone import Alone

PART = 8 << 20
STREAMS = (1, 4)  # requests at once


def cases(effort: Effort) -> list[Case]:
    return [
        Case(
            "limits",
            f"raw limits of the machine, {effort.limits} MB of the same rows",
            (Alone,),
            run,
            10,
        )
    ]


def run(trial: Trial) -> Figures:
    """MB/s; those of S3 are of compressed bytes."""
    path = trial.database(trial.effort.limits)
    raw = path.stat().st_size
    packed, found = seconds(trial, path)
    sizes = {name: packed if name.startswith("S3") else raw for name in found}
    return {f"{name} MB/s": sizes[name] / 1e6 / found[name] for name in found} | {
        "ratio of zstd -3": raw / packed
    }


def beside(trial: Trial, path: Path) -> Figures:
    """What the steps of a snapshot or a restore of this database take, each by itself."""
    return {f"limit: {name} s": value for name, value in seconds(trial, path)[1].items()}


def seconds(trial: Trial, path: Path) -> tuple[int, Figures]:
    """Bytes after compression, and what each step takes."""
    data = path.read_bytes()
    found: Figures = {}

    @contextlib.contextmanager
    def timed(name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        found[name] = time.monotonic() - began

    with timed("zstd -3, one core"):
        packed = zstandard.ZstdCompressor(level=3).compress(data)
    with timed("zstd -d, one core"):
        zstandard.ZstdDecompressor().decompress(packed)
    with timed("disk write and fsync"), (trial.directory / "raw").open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    put, get = calls(trial, packed)
    for streams in STREAMS:
        for name, call in (("PUT", put), ("GET", get)):
            with timed(f"S3 {name}, {streams} at once"), ThreadPoolExecutor(streams) as pool:
                list(pool.map(call, range(0, len(packed), PART)))
    return len(packed), found


def calls(trial: Trial, data: bytes) -> tuple[Callable[[int], Any], Callable[[int], Any]]:
    """PUT and GET of one part, named by where it begins."""
    import boto3
    from botocore.config import Config

    server = trial.place.server
    client = boto3.client(
        "s3",
        endpoint_url=trial.place.url,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name="us-east-1",
        config=Config(request_checksum_calculation="when_required"),
    )

    def put(at: int) -> None:
        client.put_object(
            Bucket=server.bucket, Key=f"{trial.system.prefix}/raw/{at}", Body=data[at : at + PART]
        )

    def get(at: int) -> None:
        client.get_object(Bucket=server.bucket, Key=f"{trial.system.prefix}/raw/{at}")[
            "Body"
        ].read()

    return put, get
