"""``replicator restore --all``: every database of a bucket or of a file, below one directory."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from replicator.cli import output
from replicator.cli.options import Location, Options, option
from replicator.errors import ConfigError, NoBackup

if TYPE_CHECKING:
    from replicator.recovery.set_report import (
        RestoredDatabase,
        SetListener,
        SetProgress,
        SetReport,
    )

EVERY = 0.5  # seconds between two lines of progress
NO_BACKUP = {"counts": {}, "databases": [], "code": "no_backup"}  # in place of a report


@dataclass(frozen=True, slots=True)
class Several(Options):
    """The options of a restore of several databases."""

    every: Annotated[
        bool,
        option(
            "--all",
            help="restore every database of the bucket, of --prefix or of --config, below --into",
        ),
    ] = False
    into: Annotated[
        Path | None,
        option(
            "--into",
            metavar="DIR",
            help="with --all: the directory; each database gets its name below --prefix there",
        ),
    ] = None
    only: Annotated[
        list[str] | None,
        option(
            "--only",
            metavar="PATTERN",
            help="with --all: only databases with such names, for example 'tenants/*'; may be "
            "repeated",
        ),
    ] = None

    def require_all(self) -> None:
        """``ConfigError`` for an option that only ``--all`` has."""
        for name, value in (("--into", self.into), ("--only", self.only)):
            if value:
                raise ConfigError(
                    f"{name} is for --all", setting=name[2:], hint="add --all, or use --output"
                )

    def directory(self, alone: Mapping[str, object]) -> Path:
        """The directory; ``ConfigError`` without one, or with an option of ``alone``, which is for
        one database."""
        for name, value in alone.items():
            if value:
                raise ConfigError(
                    f"{name} is for one database, and --all for several",
                    setting=name[2:],
                    hint="use --at for one time or one name of all; omit --all for one database",
                )
        if self.into is None:
            raise ConfigError("--all needs a directory", setting="into", hint="add --into DIR")
        return self.into


def restore(
    several: Several,
    location: Location,
    into: Path,
    *,
    config: Path | None,
    if_backup_exists: bool,
    as_json: bool,
    **wishes: Any,
) -> int:
    """Run the restore and show its report; the exit code is that of the worst database."""
    from replicator.recovery.restore_all import restore_all

    place: dict[str, Any] = {"config": config, **location.given}
    if config is None:
        place = {"address": location.address}
    try:
        with shown(as_json=as_json) as listener:
            report = restore_all(
                into=into, only=several.only or (), progress=listener, **wishes, **place
            )
    except NoBackup:
        if not if_backup_exists:
            raise
        output.result(
            NO_BACKUP, lambda _: output.say("no backup; nothing was restored"), as_json=as_json
        )
        return 0
    if as_json:
        output.emit_json(report.to_dict())
    else:
        show(report)
    return report.exit_code


# -------------------------------------------------------------------------------- the report


def show(report: SetReport) -> None:
    """The sums first, then every database that is not as it was wanted."""
    counts = report.counts
    into = output.safe(report.into)
    planned = [each for each in report.databases if each.result == "planned"]
    if planned:
        output.say(f"would restore {output.plural(len(planned), 'database')} into {into}")
        output.table((">transaction", "committed", ">size", "name"), map(_plan, planned))
    else:
        output.say(f"[green]restored[/] {_databases(counts.get('restored', 0))} into {into}")
    output.facts(_rows(report))
    for each in report.databases:
        if each.result == "failed" and each.error is not None:
            reason = f"{each.error} ({each.error.code}, exit code {each.exit_code})"
            output.say(f"[bold red]failed[/]  {output.safe(each.name)}: {output.safe(reason)}")
        for key in each.report.avoided if each.report else ():
            output.say(f"[bold red]damaged[/]  {output.safe(key)}, replaced by other objects")
        for reason in each.report.inconclusive if each.report else ():
            output.say(f"[yellow]inconclusive[/]  {output.safe(each.name)}: {output.safe(reason)}")
    for hint in sorted(
        {each.error.hint for each in report.databases if each.exit_code and each.error}
    ):
        output.say(f"[bold]hint:[/] {output.safe(hint)}")


def _rows(report: SetReport) -> list[tuple[str, str]]:
    counts = report.counts
    restored = [each.report for each in report.databases if each.result == "restored"]
    lost = sum(each.report.lost_txids for each in report.databases if each.report)
    late = [each.name for each in report.databases if each.result == "not_yet"]
    rows = [
        ("moment", _moment(report)),
        ("complete", f"{_databases(counts.get('complete', 0))}, left alone"),
        ("failed", _databases(counts.get("failed", 0))),
    ]
    if late:
        rows.append(("not there", f"{_databases(len(late))}, which began later: {_names(late)}"))
    if lost:
        rows.append(("lost", f"[bold red]{output.plural(lost, 'transaction')}[/]"))
    size = sum(each.size for each in restored if each is not None)
    needed = f"{output.size(report.needed_bytes)} of {output.size(report.free_bytes)} free"
    took = f"{output.duration(report.seconds)}, {output.size(size)} restored"
    return [*rows, ("disk space", needed), ("took", took)]


def _moment(report: SetReport) -> str:
    if report.moment_ms is not None:
        return output.moment(report.moment_ms)
    return f"the name {output.safe(report.name)}" if report.name else "the newest of each"


def _plan(each: RestoredDatabase) -> tuple[str, ...]:
    assert each.report is not None
    at = "" if each.report.committed_at is None else output.moment(each.report.committed_at)
    name = output.safe(each.name)
    return f"{each.report.txid:,}", at, output.size(each.report.size), name


def _databases(count: int) -> str:
    return output.plural(count, "database")


def _names(names: list[str], most: int = 10) -> str:
    shown = ", ".join(map(output.safe, names[:most]))
    return f"{shown}, …" if len(names) > most else shown


# ------------------------------------------------------------------------------ the progress


@contextmanager
def shown(*, as_json: bool) -> Iterator[SetListener]:
    """A listener for the library, with its display while the block runs."""
    if as_json:
        yield lines(_json_line, time.monotonic)
    elif sys.stderr is not None and sys.stderr.isatty():
        with _bar() as listener:
            yield listener
    else:
        yield lines(_short_line, time.monotonic)


def lines(line: Callable[[SetProgress], str], clock: Callable[[], float]) -> SetListener:
    """One line when a phase begins, for each outcome that ``line`` has a text for, for each new
    reason of a repeated request, and at most two a second in between."""
    phase, last = "", -EVERY
    reasons: set[str] = set()

    def listen(now: SetProgress) -> None:
        nonlocal phase, last
        news = now.phase != phase or now.ended or (now.trouble and now.trouble not in reasons)
        if not news and (now.trouble or clock() - last < EVERY):
            return
        phase, last = now.phase, clock()
        if now.trouble:
            reasons.add(now.trouble)
        if text := line(now):
            output.note(text)

    return listen


def _json_line(now: SetProgress) -> str:
    document = {name: getattr(now, name) for name in ("phase", "done", "total", "failed")}
    document |= {"done_bytes": now.done_bytes, "total_bytes": now.total_bytes}
    ended = None if now.ended is None else now.ended.to_dict()
    return output.to_json({"progress": document | {"trouble": now.trouble, "ended": ended}})


_WORDS = {"search": "searching", "plan": "planning", "restore": "restoring"}


def _short_line(now: SetProgress) -> str:
    if now.trouble:
        return f"{now.trouble}; trying again"
    if now.ended is not None and now.ended.result != "failed":
        return ""
    if now.ended is not None:
        return f"failed: {now.ended.name}: {now.ended.error}"
    return f"{_WORDS[now.phase]}: {now.done:,} of {_databases(now.total)}" + (
        f", {output.size(now.done_bytes)}" if now.done_bytes else ""
    )


@contextmanager
def _bar() -> Iterator[SetListener]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[size]}"),
        TimeRemainingColumn(compact=True),
    )
    with Bars(*columns, console=output.console(stderr=True), transient=True) as bars:
        task = bars.add_task(_WORDS["search"], total=None, size="")
        written: set[str] = set()

        def listen(now: SetProgress) -> None:
            failed = now.ended is not None and now.ended.result == "failed"
            text = _short_line(now) if failed or now.trouble else ""
            if text and text not in written:
                written.add(text)
                bars.console.print(output.safe(text), soft_wrap=True)
            bars.update(
                task,
                description=_WORDS[now.phase],
                total=now.total or None,
                completed=now.done,
                size=output.size(now.done_bytes),
            )

        yield listen
