"""The text of the command line: figures for people, JSON for programs, errors for both.

Owns every format on stdout and stderr; decides nothing. Results are printed on stdout; errors and
progress on stderr, so that programs can parse the stdout of ``--json``.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TextIO, TypeVar

from replicator.archive.timespec import to_text
from replicator.errors import ReplicatorError
from replicator.format.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

_UNITS = ("KiB", "MiB", "GiB", "TiB")
WIDEST = 10_000  # columns of a table, which no terminal cuts off: it wraps

# ------------------------------------------------------------------------------- figures


def size(n: float) -> str:
    """Bytes for people: ``512 B``, ``1.5 MiB``."""
    if n < 1024:
        return f"{n:.0f} B"
    power = 1
    while n / 1024**power >= 1023.95 and power < len(_UNITS):
        power += 1
    return f"{n / 1024**power:.1f} {_UNITS[power - 1]}"


def duration(seconds: float) -> str:
    """Seconds for people: ``3 ms``, ``4.2 s``, ``2 m 05 s``, ``3 h 04 m``, ``2 d 03 h``."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, secs = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {secs:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} m"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours:02d} h"


def moment(ms: int | None) -> str:
    """Milliseconds since the epoch as a time that every command accepts; ``never`` for None."""
    return "never" if ms is None else to_text(ms)


def ago(ms: int | None, now: float | None = None) -> str:
    """The age of a moment, ``just now`` below a second; ``never`` for None."""
    if ms is None:
        return "never"
    age = (time.time() if now is None else now) - ms / 1000
    return "just now" if age < 1 else f"{duration(age)} ago"


def plural(n: int, noun: str) -> str:
    """``1 object``, ``12,345 objects``."""
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def amount(n: int, noun: str, n_bytes: float) -> str:
    """``2 segments, 1.5 KiB``."""
    return f"{plural(n, noun)}, {size(n_bytes)}"


def transaction(txid: int, committed_ms: int | None) -> str:
    """``1,234, committed 2026-01-31T14:05:00.123Z``; without the time if it is unknown."""
    return f"{txid:,}" if committed_ms is None else f"{txid:,}, committed {moment(committed_ms)}"


# ---------------------------------------------------------------------------------- JSON


def to_json(value: object) -> str:
    """One line; dataclasses and errors become objects, other types become text."""
    return json.dumps(value, default=_plain)


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return value.to_dict() if isinstance(value, ReplicatorError) else dataclasses.asdict(value)
    return str(value)


def emit_json(value: object) -> None:
    """One JSON document on stdout, on one line."""
    print(to_json(value), flush=True)  # noqa: T201


def result(value: T, show: Callable[[T], object], *, as_json: bool) -> None:
    """The result of a command: JSON for programs, or shown to people."""
    if as_json:
        emit_json(value)
    else:
        show(value)


def results(values: Iterable[T], show: Callable[[T], object], *, as_json: bool) -> None:
    """Results as they arrive: one JSON list on one line, or shown to people one by one."""
    if not as_json:
        for each in values:
            show(each)
        return
    opening = "["
    for each in values:
        print(opening + to_json(each), end="")  # noqa: T201
        opening = ", "
    print("[]" if opening == "[" else "]", flush=True)  # noqa: T201


# -------------------------------------------------------------------------------- people


def console(*, stderr: bool = False) -> Console:
    """A console that wraps lines on a terminal only."""
    from rich.console import Console

    probe = Console(stderr=stderr, highlight=False, emoji=False)
    if probe.is_terminal:
        return probe
    return Console(stderr=stderr, highlight=False, emoji=False, width=200)


NO_KEY = "not checked: the archive is sealed, and no --integrity-key was given"


def say(text: str = "") -> None:
    """A line for people on stdout (rich markup)."""
    console().print(printable(text), soft_wrap=True)


def safe(text: str) -> str:
    """Text from elsewhere, escaped so that brackets are printed and not read as markup, and so
    that nothing in it acts on the terminal."""
    from rich.markup import escape

    return escape(printable(text))


def facts(rows: Iterable[tuple[str, str]], *, indent: int = 2) -> None:
    """Label and value, aligned."""
    kept = list(rows)
    width = max((len(label) for label, _ in kept), default=0)
    screen = console()
    for label, value in kept:
        screen.print(f"{' ' * indent}[dim]{label:<{width}}[/]  {printable(value)}", soft_wrap=True)


def inconclusive(reasons: Iterable[str]) -> list[tuple[str, str]]:
    """Rows for :func:`facts`: why a check could not be made."""
    return [("inconclusive", f"[yellow]{safe(reason)}[/]") for reason in reasons]


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table without lines; the name of a column of figures begins with ``>``."""
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for name in columns:
        grid.add_column(
            name.lstrip(">"), justify="right" if name[:1] == ">" else "left", no_wrap=True
        )
    for row in rows:
        grid.add_row(*map(printable, row))
    Console(highlight=False, emoji=False, width=WIDEST).print(grid)


# -------------------------------------------------------------------------------- stderr


def _is_terminal(stream: TextIO | None) -> bool:
    """False also for one that is closed. The console of rich, which knows more, costs 0.1 s."""
    if stream is None or stream.closed:
        return False
    return stream.isatty() or "FORCE_COLOR" in os.environ


def note(line: str) -> None:
    """A line on stderr, without markup."""
    if sys.stderr is not None:  # print() would take stdout in its place
        print(printable(line), file=sys.stderr, flush=True)  # noqa: T201


def report_error(error: ReplicatorError, *, as_json: bool) -> None:
    """An error and its hint on stderr; one JSON document with ``--json``."""
    if as_json:
        note(to_json(error.to_dict()))
        return
    if not _is_terminal(sys.stderr):
        note(f"error: {error}")
        if error.hint:
            note(f"hint:  {error.hint}")
        return
    screen = console(stderr=True)
    screen.print(f"[bold red]error:[/] {safe(str(error))}", soft_wrap=True)
    if error.hint:
        screen.print(f"[bold]hint:[/]  {safe(error.hint)}", soft_wrap=True)
