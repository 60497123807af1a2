"""The program of the child process of :mod:`.isolated`: one check, under limits of the system.

Reads one request (JSON) from its standard input, and writes the result or the error. Owns the
limits. Refuses checks without a name in ``CHECKS``.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from replicator.errors import ReplicatorError
from replicator.sqlite.connect import extensions
from replicator.sqlite.isolated import CHECKS

PAGE = resource.getpagesize()


def main() -> None:
    request = json.loads(sys.stdin.buffer.read())
    _limit(request)
    try:
        check = CHECKS[request["check"]]
        prepare = extensions([Path(each) for each in request["extensions"]])
        reply = {"result": check(Path(request["path"]), request["argument"], prepare)}
    except ReplicatorError as error:
        reply = {"error": error.to_dict()}
    except MemoryError:
        reply = {"memory": True}
    sys.stdout.write(json.dumps(reply))


def _limit(request: Mapping[str, Any]) -> None:
    """A process that exceeds the memory gets no more; one that exceeds the processor time, with no
    parent left to end it, is ended."""
    size = Path(request["path"]).stat().st_size
    seconds = int(request["seconds"]) + 10
    _lower(resource.RLIMIT_AS, _address_space() + int(request["memory"]))
    _lower(resource.RLIMIT_FSIZE, size + int(request["temporary"]))
    _lower(resource.RLIMIT_CPU, seconds)
    _lower(resource.RLIMIT_CORE, 0)


def _lower(which: int, value: int) -> None:
    soft, hard = resource.getrlimit(which)
    bounds = [bound for bound in (soft, hard) if bound != resource.RLIM_INFINITY]
    resource.setrlimit(which, (min(value, *bounds), hard) if bounds else (value, hard))


def _address_space() -> int:
    """Bytes of address space that this process has; 0 where the system does not show it."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[0]) * PAGE
    except OSError:
        return 1 << 30


if __name__ == "__main__":
    main()
