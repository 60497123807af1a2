"""How the command line speaks: figures for people, JSON for programs, errors for both.

Owns every format on stdout and stderr; decides nothing. Results go to stdout; errors and
progress go to stderr, so that ``--json`` on stdout stays parseable.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from replicator.errors import ReplicatorError

if TYPE_CHECKING:
    from rich.console import Console

_UNITS = ("KiB", "MiB", "GiB", "TiB")


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
    """Milliseconds since the epoch as UTC wall time; ``never`` for None."""
    if ms is None:
        return "never"
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def ago(ms: int | None, now: float | None = None) -> str:
    """How long ago a moment was; ``never`` for None."""
    if ms is None:
        return "never"
    age = (time.time() if now is None else now) - ms / 1000
    return "just now" if age < 1 else f"{duration(age)} ago"


def plural(n: int, noun: str) -> str:
    """``1 object``, ``12,345 objects``."""
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def plain(value: object) -> Any:
    """Dataclasses as dictionaries, all the way down; everything else as it is."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value


def emit_json(value: object) -> None:
    """One JSON document on stdout, on one line."""
    print(json.dumps(plain(value), default=str), flush=True)  # noqa: T201


def console(*, stderr: bool = False) -> Console:
    """A console that never cuts a line when nobody looks at it."""
    from rich.console import Console

    probe = Console(stderr=stderr, highlight=False)
    if probe.is_terminal:
        return probe
    return Console(stderr=stderr, highlight=False, width=200)


def say(text: str = "") -> None:
    """A line for people on stdout (rich markup)."""
    console().print(text, soft_wrap=True)


def safe(text: str) -> str:
    """Foreign text that may hold brackets, to be shown as it is."""
    from rich.markup import escape

    return escape(text)


def facts(rows: Iterable[tuple[str, str]], *, indent: int = 2) -> None:
    """Label and value, aligned."""
    kept = list(rows)
    width = max((len(label) for label, _ in kept), default=0)
    screen = console()
    for label, value in kept:
        screen.print(f"{' ' * indent}[dim]{label:<{width}}[/]  {value}", soft_wrap=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table without lines; a column whose name begins with ``>`` holds figures."""
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for name in columns:
        grid.add_column(
            name.lstrip(">"), justify="right" if name[:1] == ">" else "left", no_wrap=True
        )
    for row in rows:
        grid.add_row(*row)
    console().print(grid)


def report_error(error: ReplicatorError, *, as_json: bool) -> None:
    """An error and its hint on stderr; one JSON document with ``--json``."""
    if as_json:
        print(json.dumps(error.to_dict()), file=sys.stderr, flush=True)  # noqa: T201
        return
    screen = console(stderr=True)
    screen.print(f"[bold red]error:[/] {safe(str(error))}", soft_wrap=True)
    if error.hint:
        screen.print(f"[bold]hint:[/]  {safe(error.hint)}", soft_wrap=True)
