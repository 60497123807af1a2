"""The options that several commands share, each declared once.

Every option has an environment variable ``REPLICATOR_…``; the command line wins.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from replicator.errors import ConfigError

if TYPE_CHECKING:
    from replicator.store.address import StoreAddress


def duration(text: str) -> float:
    """Seconds, as the configuration reads them."""
    from replicator.config.settings import parse_duration

    return parse_duration(text)


def span(text: str) -> float:
    """Seconds, or "off", or "forever"."""
    from replicator.config.settings import parse_span

    return parse_span(text)


def size(text: str) -> int:
    """Bytes, as the configuration reads them."""
    from replicator.config.settings import parse_size

    return parse_size(text)


Database = Annotated[
    Path,
    typer.Argument(metavar="DB", envvar="REPLICATOR_DB_PATH", help="the SQLite database"),
]
DatabaseOfMany = Annotated[
    Path | None,
    typer.Argument(
        metavar="[DB]", envvar="REPLICATOR_DB_PATH", help="the SQLite database; none with --config"
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        envvar="REPLICATOR_CONFIG",
        metavar="FILE",
        help="a file that names several databases (TOML)",
    ),
]
Bucket = Annotated[
    str,
    typer.Option(
        "--bucket", "-b", envvar="REPLICATOR_BUCKET", metavar="NAME", help="the bucket of the log"
    ),
]
Prefix = Annotated[
    str,
    typer.Option(
        "--prefix",
        "-p",
        envvar="REPLICATOR_PREFIX",
        metavar="PREFIX",
        help="where in the bucket the log lives; default: the file name of the database",
    ),
]
Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="REPLICATOR_URL",
        metavar="URL",
        help="s3://bucket/prefix or file:///dir, in place of --bucket and --prefix",
    ),
]
EndpointUrl = Annotated[
    str | None,
    typer.Option(
        "--endpoint-url",
        envvar="REPLICATOR_ENDPOINT_URL",
        metavar="URL",
        help="address of an S3-compatible server; default: AWS",
    ),
]
Region = Annotated[
    str | None,
    typer.Option(
        "--region", envvar="REPLICATOR_REGION", metavar="NAME", help="region of the bucket"
    ),
]
Profile = Annotated[
    str | None,
    typer.Option(
        "--profile", envvar="REPLICATOR_PROFILE", metavar="NAME", help="profile of the AWS config"
    ),
]
CacheDir = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir",
        envvar="REPLICATOR_CACHE_DIR",
        metavar="DIR",
        help="the disk cache; default: a hidden directory beside the database",
    ),
]
LocalDatabase = Annotated[
    Path | None,
    typer.Option(
        "--database",
        envvar="REPLICATOR_DB_PATH",
        metavar="DB",
        help="the database itself, if its sidecar runs here: it is told what was found",
    ),
]
Scratch = Annotated[
    Path | None,
    typer.Option(
        "--scratch",
        envvar="REPLICATOR_SCRATCH",
        metavar="DIR",
        help="where there is room for the database; default: the temporary directory",
    ),
]
Txid = Annotated[
    int | None,
    typer.Option(
        "--txid", envvar="REPLICATOR_TXID", metavar="N", help="the state after transaction N"
    ),
]
Timestamp = Annotated[
    str | None,
    typer.Option(
        "--timestamp",
        envvar="REPLICATOR_TIMESTAMP",
        metavar="T",
        help="the state at T (like 2026-01-31T14:05:00Z, or '2 hours ago')",
    ),
]
AsJson = Annotated[
    bool,
    typer.Option("--json", envvar="REPLICATOR_JSON", help="print JSON for programs"),
]

Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        envvar="REPLICATOR_TIMEOUT",
        metavar="TIME",
        parser=duration,
        help="give up after this long, for example 30s; default: wait",
    ),
]


def _span(variable: str, text: str) -> Any:
    return typer.Option(
        envvar=f"REPLICATOR_KEEP_{variable}", metavar="TIME", parser=span, help=text
    )


KeepEveryTransaction = Annotated[
    float | None, _span("EVERY_TRANSACTION", "how long every transaction stays; default: 7d")
]
KeepHourly = Annotated[
    float | None, _span("HOURLY", "how long the last state of each hour stays; default: 30d")
]
KeepDaily = Annotated[float | None, _span("DAILY", "how long that of each day stays; default: 90d")]
KeepWeekly = Annotated[
    float | None, _span("WEEKLY", "how long that of each week stays; default: off")
]
KeepMonthly = Annotated[
    float | None, _span("MONTHLY", "how long that of each month stays; default: off")
]
KeepSnapshots = Annotated[
    int | None,
    typer.Option(
        envvar="REPLICATOR_KEEP_SNAPSHOTS",
        metavar="N",
        help="how many of the newest snapshots stay anyway; default: 2",
    ),
]


def address(
    bucket: str,
    prefix: str,
    url: str,
    endpoint_url: str | None,
    region: str | None,
    profile: str | None,
) -> StoreAddress:
    """The place a command speaks of when it names no database."""
    from replicator.store.address import StoreAddress

    if bool(bucket) == bool(url):
        raise ConfigError(
            "name one place: a bucket or a url",
            hint="set --bucket NAME (and --prefix), or --url s3://bucket/prefix",
        )
    return StoreAddress.parse(
        url or f"s3://{bucket}",
        prefix=prefix,
        endpoint_url=endpoint_url,
        region=region,
        profile=profile,
    )


def named(db: Path | None) -> Path:
    """The database, which must be named where there is no file of databases."""
    if db is None:
        raise ConfigError("no database is named", hint="name it, or a file with --config")
    return db


def around(db: Path | None, cmd: list[str] | None, context: typer.Context) -> list[str] | None:
    """The command with --config: its first word takes the position of the database."""
    if db is None:
        return None
    if str(context.get_parameter_source("db")).endswith("ENVIRONMENT"):
        raise ConfigError(
            "both a database and a file of databases are set",
            hint="unset REPLICATOR_DB_PATH, or leave --config out",
        )
    if shutil.which(db) is None:
        raise ConfigError(
            f"{db} is not found in PATH, and --config allows no database here",
            hint="name the database in the file, or write -- before a command",
        )
    return [str(db), *(cmd or ())]


def given(**options: Any) -> dict[str, Any]:
    """The options that were set; the library's defaults stand for the others."""
    return {name: value for name, value in options.items() if value not in (None, "")}
