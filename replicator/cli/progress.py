"""The progress of a restore, on stderr.

A bar with ETA on a terminal, JSON lines with ``--json``, one short line for each phase otherwise.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from replicator.cli import output
from replicator.recovery.progress import Listener, Progress

_WORDS = {
    "plan": "planning",
    "segments": "fetching segments",
    "snapshot": "fetching the snapshot",
    "verify": "verifying",
    "publish": "publishing",
    "structure": "listing objects",
    "content": "reading objects",
}
_EVERY = 0.5  # seconds between two JSON lines of one phase


@contextmanager
def shown(*, as_json: bool) -> Iterator[Listener]:
    """A listener for the library, with its display while the block runs."""
    if as_json:
        yield json_lines(time.monotonic)
    elif sys.stderr is not None and sys.stderr.isatty():
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
        output.note(output.to_json({"progress": now}))

    return listen


def short_lines() -> Listener:
    """One line for each phase, with its size, and one for each kind of failure."""
    seen: set[tuple[str, int]] = set()
    failures = _failures(output.note)

    def listen(now: Progress) -> None:
        if now.trouble:
            failures(now)
            return
        step = (now.phase, now.total_bytes)
        if step in seen:
            return
        seen.add(step)
        words = _WORDS.get(now.phase, now.phase)
        output.note(f"{words}: {output.size(now.total_bytes)}" if now.total_bytes else words)

    return listen


def _failures(write: Callable[[str], None]) -> Listener:
    """Writes each reason of a repeated request once."""
    written: set[str] = set()

    def listen(now: Progress) -> None:
        if now.trouble not in written:
            written.add(now.trouble)
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
        failures = _failures(lambda line: bars.console.print(output.safe(line), soft_wrap=True))

        def listen(now: Progress) -> None:
            if now.trouble:
                failures(now)
            bars.update(
                task,
                description=_WORDS.get(now.phase, now.phase),
                total=now.total_bytes or None,
                completed=now.done_bytes,
            )

        yield listen
