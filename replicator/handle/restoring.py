"""``restore()`` for applications.

A restore that looks at a file of the output's name opens and closes it, which would drop the locks
of the application, and it finds other processes that have the file open, never its own. So it runs
in a process of its own, unless it refuses such a file without a look.

Owns: that process, and the way of arguments, progress and result. Refuses: arguments that cannot
leave this process.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
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


def restore(**options: Any) -> RestoreReport | None:
    """Rebuild a database as it was after one transaction, prove it, and publish the file.

    Takes the options of :func:`replicator.recovery.api.restore`, and raises its errors. With
    ``if_missing`` or ``overwrite``, ``prepare`` must be a function that another process can import.
    """
    if any(map(options.get, LOOKS)) and not any(map(options.get, HERE)):
        return _elsewhere(options)
    from replicator.recovery.api import restore as restore_here

    return restore_here(**options)


def _elsewhere(options: dict[str, Any]) -> RestoreReport | None:
    """The restore in another process."""
    listener = options.pop("progress", None)
    options = options | {"shown": listener is not None}
    process = subprocess.Popen(
        [interpreter(), "-P", "-c", PROGRAM, "replicator"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(_request(options))
            process.stdin.close()
            while True:
                kind, value = pickle.load(process.stdout)  # noqa: S301 - our own child wrote it
                if kind == "error":
                    raise value
                if kind == "report":
                    report: RestoreReport | None = value
                    return report
                assert listener is not None  # only a listener gets progress
                listener(value)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
            raise ReplicatorError(
                "the process of the restore ended early", code="restore_ended"
            ) from error
        except BaseException:
            process.kill()
            raise


def _request(options: dict[str, Any]) -> bytes:
    try:
        asked = pickle.dumps(options)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"an argument cannot be passed to the process of the restore: {error}",
            setting="prepare",
            hint="write `prepare` as a function of a module",
        ) from error
    return pickle.dumps([os.path.abspath(each) for each in sys.path]) + asked


def serve(asked: Any, answers: Any) -> None:
    """The other process: answers with the report or the error, after the progress."""
    from replicator.recovery.api import restore as restore_here

    options = pickle.load(asked)  # noqa: S301 - the application wrote it

    def show(kind: str, value: object) -> None:
        pickle.dump((kind, value), answers)
        answers.flush()

    listener = (lambda progress: show("progress", progress)) if options.pop("shown") else None
    try:
        show("report", restore_here(progress=listener, **options))
    except ReplicatorError as error:
        show("error", error)
