"""``replicator run``: follow a database, or those of a file, alone or around a command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from replicator.cli import options
from replicator.sidecar.launch import RunRequest


def command(
    context: typer.Context,
    db: options.DatabaseOfMany = None,
    cmd: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- CMD …]", help="run this command and end when it ends"),
    ] = None,
    config: options.ConfigFile = None,
    bucket: options.Bucket = "",
    prefix: options.Prefix = "",
    url: options.Url = "",
    endpoint_url: options.EndpointUrl = None,
    region: options.Region = None,
    profile: options.Profile = None,
    cache_dir: options.CacheDir = None,
    auto_restore: Annotated[
        bool,
        typer.Option(
            "--auto-restore",
            envvar="REPLICATOR_AUTO_RESTORE",
            help="restore DB first when it does not exist and the bucket has it",
        ),
    ] = False,
    sync_interval: Annotated[
        float | None,
        typer.Option(
            envvar="REPLICATOR_SYNC_INTERVAL",
            metavar="TIME",
            parser=options.duration,
            help="least time between two uploads under steady writes",
        ),
    ] = None,
    snapshot_interval: Annotated[
        float | None,
        typer.Option(
            envvar="REPLICATOR_SNAPSHOT_INTERVAL",
            metavar="TIME",
            parser=options.duration,
            help="least time between two snapshots",
        ),
    ] = None,
    max_cache_bytes: Annotated[
        int | None,
        typer.Option(
            envvar="REPLICATOR_MAX_CACHE_BYTES",
            metavar="SIZE",
            parser=options.size,
            help="most disk the cache may take while the store is away",
        ),
    ] = None,
    compression_level: Annotated[
        int | None,
        typer.Option(envvar="REPLICATOR_COMPRESSION_LEVEL", metavar="N", help="zstd level"),
    ] = None,
    take_over: Annotated[
        bool,
        typer.Option(
            "--take-over",
            envvar="REPLICATOR_TAKE_OVER",
            help="begin a new generation with DB as it is, although another writer "
            "holds the log or is ahead; its history stays restorable",
        ),
    ] = False,
    allow_unsafe_store: Annotated[
        bool,
        typer.Option(
            "--allow-unsafe-store",
            envvar="REPLICATOR_ALLOW_UNSAFE_STORE",
            help="go on although the store ignores If-None-Match; only where no second "
            "replicator will ever write to this prefix",
        ),
    ] = False,
    drill_interval: Annotated[
        float | None,
        typer.Option(
            envvar="REPLICATOR_DRILL_INTERVAL",
            metavar="TIME",
            parser=options.duration,
            help="how often to prove that a restore works, for example 24h; default: never",
        ),
    ] = None,
    drill_bandwidth: Annotated[
        int | None,
        typer.Option(
            envvar="REPLICATOR_DRILL_BANDWIDTH",
            metavar="SIZE",
            parser=options.size,
            help="bytes a second that such a drill reads at most; default: 10MiB",
        ),
    ] = None,
    drill_scratch: Annotated[
        Path | None,
        typer.Option(
            envvar="REPLICATOR_DRILL_SCRATCH",
            metavar="DIR",
            help="where there is room for the database; default: in the cache",
        ),
    ] = None,
    keep: Annotated[
        bool | None,
        typer.Option(
            "--keep/--no-keep",
            envvar="REPLICATOR_KEEP",
            help="merge segments and delete what no rule keeps; default: --keep",
        ),
    ] = None,
    keep_every_transaction: options.KeepEveryTransaction = None,
    keep_hourly: options.KeepHourly = None,
    keep_daily: options.KeepDaily = None,
    keep_weekly: options.KeepWeekly = None,
    keep_monthly: options.KeepMonthly = None,
    keep_snapshots: options.KeepSnapshots = None,
    as_json: options.AsJson = False,
) -> int:
    """Follow DB, or the databases of a file, and keep them safe in the bucket.

    SIGTERM flushes, then ends. The exit code is 0 only if everything is in the bucket; around
    a command it is the command's own when that is not 0.
    """
    given = options.given(
        bucket=bucket,
        prefix=prefix,
        url=url,
        endpoint_url=endpoint_url,
        region=region,
        profile=profile,
        cache_dir=cache_dir,
        auto_restore=auto_restore or None,
        sync_interval=sync_interval,
        snapshot_interval=snapshot_interval,
        max_cache_bytes=max_cache_bytes,
        compression_level=compression_level,
        drill_interval=drill_interval,
        drill_bandwidth=drill_bandwidth,
        drill_scratch=drill_scratch,
        take_over=take_over or None,
        allow_unsafe_store=allow_unsafe_store or None,
        keep=keep,
        keep_every_transaction=keep_every_transaction,
        keep_hourly=keep_hourly,
        keep_daily=keep_daily,
        keep_weekly=keep_weekly,
        keep_monthly=keep_monthly,
        keep_snapshots=keep_snapshots,
    )
    if config is None:
        cmd = cmd or None
        given["db_path"] = options.named(db)
    else:
        cmd = options.around(db, cmd, context)
    code: int = context.obj(
        RunRequest(given, os.fspath(config) if config else None, cmd, as_json=as_json)
    )
    return code
