"""The program: ``python -m replicator``, and the console script.

Owns: the first moment of the process, in which signals get their meaning, and its last one.
"""

import logging
import os
import signal
import sys
import threading

from replicator.errors import ReplicatorError
from replicator.sidecar import launch, signals
from replicator.system import pid_one


def main() -> None:
    """Run the command line and end with its exit code."""
    arguments = sys.argv[1:]
    sidecar = arguments[:1] == ["run"] and not {"-h", "--help"} & {*arguments[:2]}
    if not sidecar:
        _end_by_signals()
        sys.exit(_call(arguments, launch.run_here))
    signals.hold()
    if pid_one.is_first():
        pid_one.live_as_parent(signals.ENDING | signals.PASSED)
    _leave(_run_sidecar(arguments))


def _run_sidecar(arguments: list[str]) -> int:
    """``replicator run``; this process imports the command line only to report an error."""
    try:
        return launch.launch(lambda start: _call(arguments, start))
    except (ReplicatorError, KeyboardInterrupt, BrokenPipeError) as error:
        from replicator.cli import ended

        return ended(arguments, error)


def _call(arguments: list[str], start: launch.Start) -> int:
    from replicator.cli import call

    return call(arguments, start)


def _end_by_signals() -> None:
    """A signal ends a command in order, so that it removes its temporary files; a second one ends
    it at once."""

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end)


def _leave(code: int) -> None:
    """Ends the process. Threads that are left wait for a store that hangs."""
    logging.shutdown()
    if threading.active_count() > 1:
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
