"""``replicator status``: the state of the running sidecar."""

from __future__ import annotations

import typer

from replicator.cli import options, output
from replicator.cli.sidecar import Answer, ask, ask_all, worst
from replicator.errors import NotDurable
from replicator.model import ReplicationStatus


def command(
    context: typer.Context,
    *,
    db: options.DatabaseOrNone = None,
    config: options.Config = None,
    cache_dir: options.CacheDir = None,
    as_json: options.AsJson = False,
) -> int:
    """Show the state of the sidecar of DB, or of each database of a file.

    Exit code 5 if a database is not healthy, 1 if no sidecar answers.
    """
    if file := options.file_of(context, db, config):
        return _show_all(ask_all(file, {"command": "status"}), as_json=as_json)
    status = ReplicationStatus(**ask(options.named(db), cache_dir, {"command": "status"}))
    output.result(status, show, as_json=as_json)
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
        f"{status.state}, standby {status.standby[0]}" if status.standby else status.state,
        f"{status.durable_txid:,} of {status.txid:,}",
        output.duration(status.lag_seconds),
        output.size(status.pending_bytes),
        "" if status.healthy else output.safe(status.last_error or ""),
    )


def show(status: ReplicationStatus, *, now: float | None = None) -> None:
    """The verdict first, then the figures behind it."""
    mark = "[bold green]● healthy[/]" if status.healthy else "[bold red]● NOT HEALTHY[/]"
    route = f"{status.database} → {status.url}"
    output.say(f"{mark}  {status.state}  {output.safe(route)}")
    output.facts(_rows(status, now))


def _rows(status: ReplicationStatus, now: float | None) -> list[tuple[str, str]]:
    rows = [
        ("durable", _durable(status)),
        ("lag", f"{output.duration(status.lag_seconds)}, {output.size(status.lag_bytes)}"),
        ("waiting", output.amount(status.pending_segments, "segment", status.pending_bytes)),
        ("last upload", output.ago(status.last_wal_sync, now)),
        ("last snapshot", _snapshot(status, now)),
        ("verified", _verified(status, now)),
        ("uploaded", output.amount(status.uploaded_objects, "object", status.uploaded_bytes)),
        (
            "WAL",
            f"{output.plural(status.wal_frame_count, 'frame')}, "
            f"{output.plural(status.roll_overs, 'roll-over')}",
        ),
        ("write lock", _write_lock(status)),
        ("generation", status.generation or "none yet"),
    ]
    if status.standby:
        pids = ", ".join(map(str, status.standby))
        rows.append(("standby", f"process {pids}, which continues after the end of this sidecar"))
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


def _verified(status: ReplicationStatus, now: float | None) -> str:
    if status.last_verified_txid is None:
        return "never; see replicator drill"
    return (
        f"transaction {status.last_verified_txid:,} was restored "
        f"{output.ago(status.last_verified_ms, now)}"
    )


def _write_lock(status: ReplicationStatus) -> str:
    if not status.write_lock_holds:
        return "never taken"
    longest = output.duration(status.longest_write_lock_ms / 1000)
    return f"taken {output.plural(status.write_lock_holds, 'time')}, {longest} at most"
