"""The program: ``python -m replicator``, and the console script.

Owns: the first moment of the process, in which signals get their meaning, and its last one.
"""

import os
import signal
import sys

from replicator.errors import ReplicatorError
from replicator.sidecar import launch, signals
from replicator.system import pid_one, process

PATIENCE = 3.0  # seconds for the requests under way, once a signal has ended a command


def main() -> None:
    """Run the command line and end with its exit code."""
    arguments = sys.argv[1:]
    sidecar = arguments[:1] == ["run"] and not {"-h", "--help"} & {*arguments[:2]}
    if not sidecar:
        _end_by_signals()
        try:
            sys.exit(_call(arguments, launch.run_here))
        except KeyboardInterrupt:  # while its modules were loaded
            sys.exit(128 + signal.SIGINT)
    signals.hold()
    if pid_one.is_first():
        pid_one.live_as_parent(signals.ENDING | signals.PASSED)
    process.leave(_run_sidecar(arguments))


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
    """A signal ends a command in order, so that it removes its temporary files, but waits for no
    store that hangs; a second one ends it at once."""

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGALRM, lambda *_: _leave(128 + number))
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    sys.unraisablehook = _unraisable
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end)


def _unraisable(event: "sys.UnraisableHookArgs") -> None:
    """Python prints an exception that a finalizer or a callback raises, and continues. One of a
    signal that arrived there has to end the process."""
    match event.exc_value:
        case SystemExit(code=int(code)):
            _leave(code)
        case KeyboardInterrupt():
            _leave(128 + signal.SIGINT)
        case _:
            sys.__unraisablehook__(event)


def _leave(code: int) -> None:
    """Ends the process at once, also while its threads wait for a store; the next one resumes a
    restore."""
    from replicator.system import scratch

    scratch.discard_all()
    os._exit(code)


if __name__ == "__main__":
    main()
