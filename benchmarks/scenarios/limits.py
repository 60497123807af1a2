"""The raw limits of the machine: what nobody can beat. MB/s of the same half-random rows."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import zstandard

from benchmarks.scenarios.base import Case, Effort, Figures, Trial
from benchmarks.systems.alone import Alone

PART = 8 << 20


def cases(effort: Effort) -> list[Case]:
    return [Case("limits", f"raw limits of the machine, {effort.limits} MB of the same rows",
                 (Alone,), run)]


def run(trial: Trial) -> Figures:
    data = trial.database(trial.effort.limits).read_bytes()
    figures = {}

    @contextlib.contextmanager
    def rate(name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        figures[f"{name} MB/s"] = len(data) / 1e6 / (time.monotonic() - began)

    with rate("zstd -3, one core"):
        packed = zstandard.ZstdCompressor(level=3).compress(data)
    with rate("zstd -d, one core"):
        zstandard.ZstdDecompressor().decompress(packed)
    with rate("disk write and fsync"), (trial.directory / "raw").open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    for streams in (1, 4):
        put, get = calls(trial, data)
        for name, call in (("PUT", put), ("GET", get)):
            with rate(f"S3 {name}, {streams} at once"), ThreadPoolExecutor(streams) as pool:
                list(pool.map(call, range(0, len(data), PART)))
    return figures | {"ratio of zstd -3": len(data) / len(packed)}


def calls(trial: Trial, data: bytes) -> tuple[Callable[[int], Any], Callable[[int], Any]]:
    """PUT and GET of one part, named by where it begins."""
    import boto3
    from botocore.config import Config

    server = trial.place.server
    client = boto3.client(
        "s3", endpoint_url=trial.place.url, aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key, region_name="us-east-1",
        config=Config(request_checksum_calculation="when_required"))

    def put(at: int) -> None:
        client.put_object(Bucket=server.bucket, Key=f"{trial.system.prefix}/raw/{at}",
                          Body=data[at:at + PART])

    def get(at: int) -> None:
        client.get_object(Bucket=server.bucket,
                          Key=f"{trial.system.prefix}/raw/{at}")["Body"].read()

    return put, get
