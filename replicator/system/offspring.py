"""The processes that descend from a command, also those whose parents have ended.

A server that dies leaves its workers; they get another parent and continue to write. They inherited
the environment of the command, and a variable in it identifies them. One that was started with an
empty environment is not found.

Owns: that variable, and the search in proc(5). Refuses: to decide what such processes are for.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal

VARIABLE = "REPLICATOR_COMMAND"


class Offspring:
    """The processes of one command, which starts with the variables of :meth:`environment`.

    ``proc`` is where proc(5) is mounted.
    """

    def __init__(self, proc: str | os.PathLike[str] = "/proc") -> None:
        self._mark = secrets.token_hex(8)
        self._proc = proc

    def environment(self) -> dict[str, str]:
        """The environment of this process with the mark; a command inside of another has both."""
        marks = [*os.environ.get(VARIABLE, "").split(), self._mark]
        return {**os.environ, VARIABLE: " ".join(marks)}

    def alive(self) -> list[int]:
        """The process ids of those that have not ended; none where proc(5) does not exist."""
        with contextlib.suppress(OSError):
            return sorted(int(name) for name in os.listdir(self._proc) if self._is_own(name))
        return []

    def send(self, number: int) -> None:
        """Send a signal to all of them."""
        for pid in self.alive():
            with contextlib.suppress(OSError):  # it has ended since
                os.kill(pid, signal.Signals(number))

    def _is_own(self, name: str) -> bool:
        if not name.isdigit():
            return False
        try:
            with open(
                f"{self._proc}/{name}/environ", "rb"
            ) as file:  # empty once the process has ended
                return self._mark.encode() in file.read()
        except OSError:
            return False
