"""``replicator status``: how the running sidecar is doing."""

from __future__ import annotations

from replicator.cli import options, output
from replicator.cli.sidecar import Answer, ask, ask_all, worst
from replicator.errors import NotDurable
from replicator.model import ReplicationStatus


def command(
    db: options.DatabaseOfMany = None,
    config: options.ConfigFile = None,
    cache_dir: options.CacheDir = None,
    as_json: options.AsJson = False,
) -> int:
    """Show how the sidecar of DB is doing, or of all databases of a file.

    The exit code is 5 when it is not healthy; of several, when one of them is not.
    """
    if db is None and config is not None:
        return _show_all(ask_all(config, {"command": "status"}), as_json=as_json)
    status = ReplicationStatus(**ask(options.named(db), cache_dir, {"command": "status"}))
    if as_json:
        output.emit_json(status)
    else:
        show(status)
    return 0 if status.healthy else NotDurable.exit_code


def _show_all(answers: list[Answer], *, as_json: bool) -> int:
    if as_json:
        output.emit_json([answer.document() for answer in answers])
    else:
        output.table(
            ["", "database", "state", ">durable", ">lag", ">waiting", "last error"],
            [_line(answer) for answer in answers],
        )
    ill = any(not answer.answer["healthy"] for answer in answers if answer.error is None)
    return NotDurable.exit_code if ill else worst(answers)


def _line(answer: Answer) -> tuple[str, ...]:
    """One database as a row of the table."""
    name = output.safe(answer.database)
    if answer.error is not None:
        return ("[bold red]●[/]", name, "not running", "", "", "", output.safe(str(answer.error)))
    status = ReplicationStatus(**answer.answer)
    return (
        "[green]●[/]" if status.healthy else "[bold red]●[/]",
        name,
        status.state,
        f"{status.durable_txid:,} of {status.txid:,}",
        output.duration(status.lag_seconds),
        output.size(status.pending_bytes),
        "" if status.healthy else output.safe(status.last_error or ""),
    )


def show(status: ReplicationStatus, *, now: float | None = None) -> None:
    """The picture for people: the verdict first, then what it rests on."""
    mark = "[bold green]● healthy[/]" if status.healthy else "[bold red]● NOT HEALTHY[/]"
    way = f"{status.database} → {status.url}"
    output.say(f"{mark}  {status.state}  {output.safe(way)}")
    output.facts(_rows(status, now))


def _rows(status: ReplicationStatus, now: float | None) -> list[tuple[str, str]]:
    rows = [
        ("durable", _durable(status)),
        ("lag", f"{output.duration(status.lag_seconds)}, {output.size(status.lag_bytes)}"),
        (
            "waiting",
            f"{output.plural(status.pending_segments, 'segment')}, "
            f"{output.size(status.pending_bytes)}",
        ),
        ("last upload", output.ago(status.last_wal_sync, now)),
        ("last snapshot", _snapshot(status, now)),
        ("proven", _proven(status, now)),
        (
            "uploaded",
            f"{output.plural(status.uploaded_objects, 'object')}, "
            f"{output.size(status.uploaded_bytes)}",
        ),
        (
            "log",
            f"{output.plural(status.wal_frame_count, 'frame')}, "
            f"{output.plural(status.roll_overs, 'roll-over')}",
        ),
        ("write lock", _write_lock(status)),
        ("generation", status.generation or "none yet"),
    ]
    if status.failed_uploads:
        rows.append(("failed", output.plural(status.failed_uploads, "upload attempt")))
    if status.last_error:
        rows.append(
            (
                "last error",
                f"[red]{output.safe(status.last_error)}[/], "
                f"{output.ago(status.last_error_at, now)}",
            )
        )
    return rows


def _durable(status: ReplicationStatus) -> str:
    if not status.generation:
        return "nothing yet"
    behind = status.txid - status.durable_txid
    if not behind and not status.lag_bytes:
        known = "all of it" if status.state == "following" else "all that was captured"
        return f"transaction {status.durable_txid:,}, which is {known}"
    if not behind:
        return f"transaction {status.durable_txid:,}, and newer ones are being captured"
    return f"transaction {status.durable_txid:,} of {status.txid:,}, [bold]{behind:,} behind[/]"


def _snapshot(status: ReplicationStatus, now: float | None) -> str:
    if status.last_snapshot_txid is None:
        return output.ago(status.last_snapshot, now)
    return f"{output.ago(status.last_snapshot, now)}, of transaction {status.last_snapshot_txid:,}"


def _proven(status: ReplicationStatus, now: float | None) -> str:
    if status.last_proven_txid is None:
        return "never; a drill restores and checks"
    return (
        f"transaction {status.last_proven_txid:,} was restored "
        f"{output.ago(status.last_proven_ms, now)}"
    )


def _write_lock(status: ReplicationStatus) -> str:
    if not status.write_lock_holds:
        return "never taken"
    longest = output.duration(status.longest_write_lock_ms / 1000)
    return f"taken {output.plural(status.write_lock_holds, 'time')}, {longest} at most"
