"""``restore()`` and ``restore_all()`` for applications.

A restore that looks at a file of the output's name opens and closes it, which would drop the locks
of the application, and it finds other processes that have the file open, never its own. So it runs
in a process of its own, unless it refuses such a file without a look.

Owns: that process, and the way of arguments, progress and result. Refuses: arguments that cannot
leave this process.
"""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
from functools import partial
from typing import Any

from replicator.errors import ConfigError, ReplicatorError
from replicator.handle.interpreter import interpreter
from replicator.model import RestoreReport

PROGRAM = (
    "import pickle, sys\n"
    "sys.path[:] = pickle.load(sys.stdin.buffer)\n"
    "from replicator.handle.restoring import serve\n"
    "serve(sys.stdin.buffer, sys.stdout.buffer)"
)
LOOKS = ("if_missing", "overwrite")  # options with which a restore opens the output
HERE = ("store", "files")  # options that only tests have, and that cannot leave the process
MODULES = {"restore": "replicator.recovery.api", "restore_all": "replicator.recovery.restore_all"}


def restore(**options: Any) -> RestoreReport | None:
    """Rebuild a database as it was after one transaction, prove it, and publish the file.

    Takes the options of :func:`replicator.recovery.api.restore`, and raises its errors. With
    ``if_missing`` or ``overwrite``, ``prepare`` must be a function that another process can import.
    """
    look = any(map(options.get, LOOKS)) and not any(map(options.get, HERE))
    report: RestoreReport | None = (_elsewhere if look else _here)("restore", options)
    return report


def restore_all(**options: Any) -> Any:
    """Restore every database of a bucket; compares each with an existing file of its name.

    Takes the options of :func:`replicator.recovery.restore_all.restore_all`; returns its report.
    """
    return (_here if any(map(options.get, HERE)) else _elsewhere)("restore_all", options)


def _here(call: str, options: dict[str, Any]) -> Any:
    return getattr(importlib.import_module(MODULES[call]), call)(**options)


def _elsewhere(call: str, options: dict[str, Any]) -> Any:
    """The result of a call in another process."""
    listener = options.pop("progress", None)
    request = _request(call, options, shown=listener is not None)
    process = subprocess.Popen(
        [interpreter(), "-P", "-c", PROGRAM, "replicator"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(request)
            process.stdin.close()
            while True:
                kind, value = pickle.load(process.stdout)  # noqa: S301 - our own child wrote it
                if kind == "error":
                    raise value
                if kind == "report":
                    return value
                assert listener is not None  # only a listener gets progress
                listener(value)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
            raise ReplicatorError(
                "the process of the restore ended early", code="restore_ended"
            ) from error
        except BaseException:
            process.kill()
            raise


def _request(call: str, options: dict[str, Any], *, shown: bool) -> bytes:
    try:
        asked = pickle.dumps((call, options, shown))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"an argument cannot be passed to the process of the restore: {error}",
            setting="prepare",
            hint="write `prepare` as a function of a module",
        ) from error
    return pickle.dumps([os.path.abspath(each) for each in sys.path]) + asked


def serve(asked: Any, answers: Any) -> None:
    """The other process: answers with the report or the error, after the progress."""
    call, options, shown = pickle.load(asked)  # noqa: S301 - the application wrote it

    def show(kind: str, value: object) -> None:
        pickle.dump((kind, value), answers)
        answers.flush()

    try:
        listener = partial(show, "progress") if shown else None
        show("report", _here(call, options | {"progress": listener}))
    except ReplicatorError as error:
        show("error", error)
