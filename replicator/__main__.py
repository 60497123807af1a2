"""The program: ``python -m replicator``, and the console script."""

import sys

from replicator.errors import ReplicatorError
from replicator.sidecar import launch


def main() -> None:
    """Run the command line and end with its exit code."""
    arguments = sys.argv[1:]
    sidecar = arguments[:1] == ["run"] and not {"-h", "--help"} & {*arguments[:2]}
    sys.exit(_run_sidecar(arguments) if sidecar else _call(arguments, launch.run_here))


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


if __name__ == "__main__":
    main()
