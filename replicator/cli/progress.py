"""How far a restore has come: a bar with ETA on a terminal, JSON lines with ``--json``, one
short line a phase otherwise. All of it on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from replicator.cli import output
from replicator.recovery.progress import Listener, Progress

_WORDS = {
    "plan": "planning",
    "segments": "fetching the log",
    "snapshot": "fetching the snapshot",
    "verify": "verifying",
    "publish": "publishing",
    "structure": "looking at every object",
    "content": "reading objects",
}
_EVERY = 0.5  # seconds between two JSON lines of one phase


@contextmanager
def shown(*, as_json: bool) -> Iterator[Listener]:
    """A listener for the library, and its display as long as the block runs."""
    if as_json:
        yield json_lines(time.monotonic)
    elif sys.stderr.isatty():
        with _bar() as listener:
            yield listener
    else:
        yield short_lines()


def json_lines(clock: Callable[[], float]) -> Listener:
    """One line when a phase begins or ends, and at most two a second in between."""
    phase, last = "", -_EVERY

    def listen(now: Progress) -> None:
        nonlocal phase, last
        done = now.total_bytes and now.done_bytes == now.total_bytes
        news = now.phase != phase or done or now.trouble
        if not news and clock() - last < _EVERY:
            return
        phase, last = now.phase, clock()
        _write(json.dumps({"progress": output.plain(now)}))

    return listen


def short_lines() -> Listener:
    """One line a phase, what and how many bytes, and one for each kind of trouble."""
    seen: set[tuple[str, int]] = set()
    troubled = troubles(_write)

    def listen(now: Progress) -> None:
        if now.trouble:
            troubled(now)
            return
        step = (now.phase, now.total_bytes)
        if step in seen:
            return
        seen.add(step)
        words = _WORDS.get(now.phase, now.phase)
        _write(f"{words}: {output.size(now.total_bytes)}" if now.total_bytes else words)

    return listen


def troubles(write: Callable[[str], None]) -> Listener:
    """Why it takes longer, said once for the same words."""
    told: set[str] = set()

    def listen(now: Progress) -> None:
        if now.trouble not in told:
            told.add(now.trouble)
            write(f"{now.trouble}; trying again")

    return listen


@contextmanager
def _bar() -> Iterator[Listener]:
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Bars(*columns, console=output.console(stderr=True), transient=True) as bars:
        task = bars.add_task(_WORDS["plan"], total=None)
        troubled = troubles(lambda line: bars.console.print(output.safe(line), soft_wrap=True))

        def listen(now: Progress) -> None:
            if now.trouble:
                troubled(now)
            bars.update(
                task,
                description=_WORDS.get(now.phase, now.phase),
                total=now.total_bytes or None,
                completed=now.done_bytes,
            )

        yield listen


def _write(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201
