"""Starts a sidecar: a child process parses its command line.

Owns: the parsed request, and its way from the child to the process that runs it. The modules that
parse options take 19 MB and 0.13 s. A sidecar would keep that memory for months, so a child
parses and ends, while its parent loads the modules of replication.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from replicator.system import process


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A parsed command line of ``replicator run``."""

    settings: dict[str, Any]  # those of the command line, typed: bytes, seconds, switches, text
    config_file: str | None = None  # the TOML file of several databases
    command: list[str] | None = None  # the command to run, None: until a signal
    as_json: bool = False  # log lines and errors are JSON

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=os.fspath)  # a path becomes text

    @classmethod
    def from_json(cls, text: str) -> RunRequest:
        return cls(**json.loads(text))


Start: TypeAlias = Callable[[RunRequest], int]  # runs a request, or passes it on; the exit code


def run_here(request: RunRequest) -> int:
    """Run the sidecar in this process, which an application may share; its exit code."""
    load()
    from replicator.sidecar import daemon

    return daemon.run(request)


def launch(parse: Callable[[Start], int]) -> int:
    """Run the sidecar that ``parse`` passes to its argument; the exit code.

    ``parse`` runs in a child process. Its exit code is returned if it passes no request.
    """
    outcome = _parse_in_child(parse)
    if isinstance(outcome, int):
        return outcome
    process.claim()
    return run_here(outcome)


def _parse_in_child(parse: Callable[[Start], int]) -> RunRequest | int:
    """The request that ``parse`` passed on in a child process, else its exit code."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        sys.exit(parse(lambda request: _send(writer, request)))
    os.close(writer)
    load()  # while the child parses
    with os.fdopen(reader, encoding="ascii") as pipe:
        text = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code or not text:
        return 128 - code if code < 0 else code
    return RunRequest.from_json(text)


def _send(writer: int, request: RunRequest) -> int:
    with os.fdopen(writer, "w", encoding="ascii") as pipe:
        pipe.write(request.to_json())
    return 0


def load() -> None:
    """Import the modules of replication, with settings of the heap that keep them small."""
    process.use_one_arena()
    process.release_large_buffers()
    with process.one_blas_thread():
        import replicator.sidecar.daemon  # noqa: F401
