"""``replicator snapshot``: have the running sidecar take a snapshot now."""

from __future__ import annotations

from replicator.cli import options, output
from replicator.cli.sidecar import ask


def command(
    *,
    db: options.Database,
    cache_dir: options.CacheDir = None,
    timeout: options.Timeout = None,
    as_json: options.AsJson = False,
) -> None:
    """Take a snapshot of DB now.

    A restore of a later transaction then reads fewer segments.
    """
    answer = ask(db, cache_dir, {"command": "snapshot", "timeout": timeout})
    output.result(
        answer,
        lambda answer: output.say(
            f"[green]snapshot[/] of transaction {answer['txid']:,} is in the bucket"
        ),
        as_json=as_json,
    )
