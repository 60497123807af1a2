"""``replicator restore``: rebuild a database from the bucket."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from replicator.cli import options, output, progress, restore_all
from replicator.cli.options import option
from replicator.config.database_path import database_path
from replicator.errors import Inconclusive, NoBackup
from replicator.model import RestoreReport

NO_BACKUP = {"objects": 0, "code": "no_backup"}  # in place of a report


def command(
    context: typer.Context,
    *,
    location: options.Location,
    output_path: Annotated[
        str | None,
        option(
            "--output",
            "-o",
            metavar="PATH",
            help="file to write; default: the name of the database, in the current directory",
        ),
    ] = None,
    point: options.Point,
    if_missing: Annotated[
        bool,
        option(
            "--if-missing",
            help="do nothing if the output exists; a file that is empty or without tables counts "
            "as missing, and moves into NAME.stale-TIME",
        ),
    ] = False,
    if_backup_exists: Annotated[
        bool,
        option(
            "--if-backup-exists",
            help="end with exit code 0 if the bucket has no backup, as before the first start",
        ),
    ] = False,
    dry_run: Annotated[
        bool, option("--dry-run", help="print the plan of the restore; write nothing")
    ] = False,
    overwrite: Annotated[
        bool,
        option(
            "--overwrite", help="replace the output once the new database is complete and checked"
        ),
    ] = False,
    allow_older: Annotated[
        bool,
        option(
            "--allow-older",
            help="if the newest state is damaged, restore the newest state that is intact",
        ),
    ] = False,
    verify: Annotated[
        Literal["none", "quick", "full"],
        option(
            "--verify",
            metavar="none|quick|full",
            help="run SQLite's quick_check or integrity_check as well",
        ),
    ] = "none",
    several: restore_all.Several,
    config: options.Config = None,
    load_extension: options.LoadExtension = None,
    as_json: options.AsJson = False,
) -> int:
    """Rebuild a database as of its newest or any other transaction; with --all, several databases.

    Every page is checked against the checksums of the archive before the file gets its name. Exit
    code 10 if the file is restored, but the check of --verify cannot be made here. With --all,
    databases that are complete already are left alone, so that a second run continues; the exit
    code is that of the worst database. Exit code 6 if later transactions than the newest one in the
    bucket wait in the cache next to the output; name a point to restore it all the same.
    """
    from replicator.sqlite.connect import extensions
    from replicator.system import process

    process.use_one_arena()  # of 1 GB: 120 MB instead of 136 to 160 MB at the peak
    with process.one_blas_thread():
        from replicator.recovery.api import restore

    if several.every:
        return restore_all.restore(
            several,
            location,
            several.directory(
                {
                    "--output": output_path,
                    "--txid": point.txid,
                    "--if-missing": if_missing,
                }
            ),
            config=config,
            if_backup_exists=if_backup_exists,
            as_json=as_json,
            timestamp=point.timestamp,
            at=point.at,
            dry_run=dry_run,
            overwrite=overwrite,
            allow_older=allow_older,
            verify=verify,
            prepare=extensions(load_extension or ()),
        )
    several.require_all()
    options.refuse_file(context, config)
    with progress.shown(as_json=as_json) as listener:
        report = restore(
            address=location.address,
            output=database_path(output_path) if output_path else None,
            txid=point.txid,
            timestamp=point.timestamp,
            at=point.at,
            if_missing=if_missing,
            dry_run=dry_run,
            overwrite=overwrite,
            allow_older=allow_older,
            verify=verify,
            progress=listener,
            prepare=extensions(load_extension or ()),
        )
    if report is None and if_backup_exists:
        output.result(
            NO_BACKUP, lambda _: output.say("no backup; nothing was restored"), as_json=as_json
        )
        return 0
    if report is None:
        raise NoBackup("no backup found", hint="list the bucket with replicator history")
    output.result(report, lambda report: show(report, dry_run=dry_run), as_json=as_json)
    return Inconclusive.exit_code if report.inconclusive else 0


def show(report: RestoreReport, *, dry_run: bool) -> None:
    """The restore point, and the checks that were made."""
    if not report.objects:
        output.say(f"{output.safe(report.output)} exists; nothing was restored")
        return
    verb = "would restore" if dry_run else "[green]restored[/]"
    output.say(f"{verb} {output.safe(report.output)} from {output.safe(report.url)}")
    output.facts(_rows(report, dry_run=dry_run))


def _fetched(report: RestoreReport, *, dry_run: bool) -> str:
    """Objects and bytes; of a plan only the listing is known."""
    amount = output.amount(report.objects, "object", report.downloaded_bytes)
    return f"{amount} as listed" if dry_run else amount


def _rows(report: RestoreReport, *, dry_run: bool) -> list[tuple[str, str]]:
    rows = [
        ("transaction", output.transaction(report.txid, report.committed_at)),
        ("snapshot", f"of transaction {report.snapshot_txid:,}"),
        ("to fetch" if dry_run else "fetched", _fetched(report, dry_run=dry_run)),
    ]
    if not dry_run:
        rate = report.size / max(report.seconds, 0.001)
        pages = f"{report.pages:,} pages of {report.page_size:,} bytes"
        rows += [
            ("database", f"{output.size(report.size)}, {pages}"),
            ("took", f"{output.duration(report.seconds)}, {output.size(rate)}/s"),
            ("verified", output.safe(report.verified)),
        ]
    if report.unauthenticated:
        rows.append(("seals", f"[bold yellow]{output.NO_KEY}[/]"))
    rows += [
        (
            "damaged",
            f"[bold red]{output.safe(key)}[/], replaced by other objects; "
            "check the archive with replicator verify --data",
        )
        for key in report.avoided
    ]
    rows += output.inconclusive(report.inconclusive)
    if report.lost_txids:
        lost = output.plural(report.lost_txids, "transaction")
        rows.append(("lost", f"[bold red]{lost}[/] after this one could not be restored"))
    return rows
