"""The program: ``python -m replicator``, and the console script."""

import sys

from replicator.errors import ReplicatorError
from replicator.sidecar import launch


def main() -> None:
    """Run the command line and end with its exit code."""
    arguments = sys.argv[1:]
    stays = arguments[:1] == ["run"] and not {"-h", "--help"} & {*arguments[:2]}
    sys.exit(_run(arguments) if stays else _call(arguments))


def _run(arguments: list[str]) -> int:
    """``run``, without the modules of the command line, but for telling of an error."""
    try:
        return launch.apart(lambda: _call(arguments))
    except (ReplicatorError, KeyboardInterrupt, BrokenPipeError) as error:
        from replicator.cli import ended

        return ended(arguments, error)


def _call(arguments: list[str]) -> int:
    from replicator.cli import call

    return call(arguments)


if __name__ == "__main__":
    main()
