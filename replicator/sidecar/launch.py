"""How a sidecar begins: its command line is read in a process apart.

Owns the two ways to run a function of the daemon: right here, or in the process that waits for
its arguments. What parses options takes 19 MB and 0.13 s. A sidecar would keep the memory for
months; so a child parses, and goes, while its parent loads what the sidecar needs.
"""

from __future__ import annotations

import importlib
import os
import pickle
import sys
from collections.abc import Callable
from typing import Any

from replicator.system import process

_waiting: list[int] = []  # in the child: the pipe to the process that waits


def begin(name: str, *args: Any, **kwargs: Any) -> int:
    """Call a function of the daemon, here or in the process that waits; its exit code."""
    if not _waiting:
        return _call(name, args, kwargs)
    with os.fdopen(_waiting.pop(), "wb") as pipe:
        pickle.dump((name, args, kwargs), pipe)
    return 0


def apart(parse: Callable[[], int]) -> int:
    """Let ``parse`` decide in a child what is to :func:`begin`, and do that here; the exit code,
    which is that of ``parse`` where nothing is to begin."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        _waiting.append(writer)
        sys.exit(parse())
    os.close(writer)
    _daemon()
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code or not told:
        return 128 - code if code < 0 else code
    process.claim()
    return _call(*pickle.loads(told))  # noqa: S301 - from our own child


def _call(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    code: int = getattr(_daemon(), name)(*args, **kwargs)
    return code


def _daemon() -> Any:
    process.one_arena()
    process.large_apart()
    with process.one_blas_thread():
        return importlib.import_module("replicator.sidecar.daemon")
