"""Runs SQL on a database of unknown origin in a process of its own, with limits.

A statement, or a view, may run for ever, take all memory, or fill the disk with temporary files.
SQLite cannot be interrupted inside one function, and its limit of memory counts for a whole
process, so neither may happen in the process of an application. Owns the child: its limits, its
deadline, and its answer, which is the one that the same check would give here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from replicator.errors import Cancelled, Inconclusive, LocalIOError, from_dict
from replicator.sqlite import check, integrity
from replicator.sqlite.connect import Extensions, Prepare, unprepared

LOOK = 0.05  # seconds between two calls of cancelled
PROGRAM = "replicator.sqlite.isolated_program"


@dataclass(frozen=True, slots=True)
class SqlLimits:
    """Limits of one check: seconds, bytes of memory beyond those of Python, and bytes of each
    temporary file beyond the size of the database. The check ends soon after ``cancelled`` returns
    True."""

    seconds: float = 600.0
    memory: int = 256 << 20
    temporary: int = 64 << 20
    cancelled: Callable[[], bool] = lambda: False


DEFAULT_LIMITS = SqlLimits()
SLOWEST = 1 << 20  # bytes a second: a check of a whole file gets at least the time for that


def check_database(
    path: Path, *, full: bool, prepare: Prepare = unprepared, limits: SqlLimits = DEFAULT_LIMITS
) -> tuple[str, ...]:
    """:func:`replicator.sqlite.integrity.check_database`, isolated. A large file gets more time.
    A check that was ended is inconclusive, too."""
    if _needs_this_process(prepare):
        return integrity.check_database(
            path, full=full, cancelled=limits.cancelled, prepare=prepare
        )
    seconds = max(limits.seconds, path.stat().st_size / SLOWEST)
    try:
        return tuple(run_isolated("whole", path, full, prepare, replace(limits, seconds=seconds)))
    except Inconclusive as error:
        return (str(error),)


def require_true(
    path: Path, sql: str, *, prepare: Prepare = unprepared, limits: SqlLimits = DEFAULT_LIMITS
) -> None:
    """:func:`replicator.sqlite.check.require_true`, isolated."""
    if _needs_this_process(prepare):
        check.require_true(path, sql, prepare)
        return
    run_isolated("statement", path, sql, prepare, limits)


def _needs_this_process(prepare: Prepare) -> bool:
    """True for a hook of Python, which no child has; there the authorizer is the only limit."""
    return not (prepare is unprepared or isinstance(prepare, Extensions))


def run_isolated(
    name: str, path: Path, argument: object, prepare: Prepare, limits: SqlLimits
) -> Any:
    """The result of one of ``CHECKS`` on the database ``path``.

    SQLite's temporary files are next to the database. Raises the error of the check, ``Cancelled``,
    and ``Inconclusive`` with the code ``deadline``, ``memory_limit`` or ``check_crashed``.
    """
    paths = prepare.paths if isinstance(prepare, Extensions) else ()
    request = {
        "check": name,
        "path": str(path),
        "argument": argument,
        "extensions": [str(each) for each in paths],
        "seconds": limits.seconds,
        "memory": limits.memory,
        "temporary": limits.temporary,
    }
    ends = time.monotonic() + limits.seconds
    with _child(path.parent) as child:
        data = json.dumps(request).encode()
        while True:
            try:
                output, errors = child.communicate(data, timeout=LOOK)
                return _result(output, errors, argument)
            except subprocess.TimeoutExpired:
                data = b""
            if limits.cancelled():
                raise Cancelled("the check was cancelled")
            if time.monotonic() > ends:
                reason = f"has run for {limits.seconds:g} s and was ended"
                raise _exceeded(argument, reason, "deadline")


@contextmanager
def _child(scratch: Path) -> Iterator[subprocess.Popen[bytes]]:
    package = Path(__file__).parents[2]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(package), *filter(None, sys.path)]),
        "SQLITE_TMPDIR": str(scratch),
    }
    pipe = subprocess.PIPE
    program = [sys.executable, "-P", "-m", PROGRAM]
    try:
        child = subprocess.Popen(program, stdin=pipe, stdout=pipe, stderr=pipe, env=environment)
    except OSError as error:
        raise LocalIOError(
            f"cannot start a process for the checks: {error}", path=sys.executable
        ) from error
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def _result(output: bytes, errors: bytes, argument: object) -> Any:
    try:
        reply = json.loads(output)
    except ValueError:
        last = errors.decode(errors="replace").strip().rpartition("\n")[2]
        reason = f"ended its process: {last or 'a signal'}"
        raise _exceeded(argument, reason, "check_crashed") from None
    if "error" in reply:
        raise from_dict(reply["error"])
    if reply.get("memory"):
        raise _exceeded(argument, "needs more memory than it may have", "memory_limit")
    return reply["result"]


def _exceeded(argument: object, reason: str, code: str) -> Inconclusive:
    sql = argument if isinstance(argument, str) else ""
    what = repr(sql) if sql else "SQLite's check of the database"
    return Inconclusive(f"{what} {reason}", statement=sql, code=code)


CHECKS: dict[str, Callable[[Path, Any, Prepare], Any]] = {
    "whole": lambda path, full, prepare: integrity.check_database(path, full=full, prepare=prepare),
    "statement": check.require_true,
}
