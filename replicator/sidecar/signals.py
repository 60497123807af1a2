"""SIGTERM and SIGINT of a sidecar: a flag that can be waited for, or signals to a command.

Owns the handlers, which the end of the context removes. Refuses to act: the caller decides what a
signal ends.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import subprocess
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, Self


class Signals:
    """Receives SIGTERM and SIGINT; while a command runs, it gets them too."""

    def __init__(self) -> None:
        self.received = False
        # The handler may interrupt wait() anywhere. SimpleQueue.put is reentrant; Event.set is not:
        # it would wait for a lock that the interrupted wait holds.
        self._arrivals: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._child: subprocess.Popen[bytes] | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def install(self) -> None:
        """Handle the signals from now on, until the end of the context."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self.handle)

    def handle(self, number: int, frame: FrameType | None = None) -> None:
        """Record the signal, and send it to the command if one runs."""
        self.received = True
        self._arrivals.put(number)
        if self._child is not None:
            self._child.send_signal(number)

    @contextlib.contextmanager
    def forwarded_to(self, child: subprocess.Popen[bytes]) -> Iterator[None]:
        """Send signals to ``child`` too. One that arrived before ends it now."""
        self._child = child
        if self.received:
            child.terminate()
        try:
            yield
        finally:
            self._child = None

    def rearm(self) -> None:
        """Forget the signals so far: from now on, one means "end at once"."""
        self.received = False

    def wait(self, seconds: float) -> bool:
        """Sleep, but return as soon as a signal arrives; True if one was received."""
        until = time.monotonic() + seconds
        while not self.received and (left := until - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                self._arrivals.get(timeout=left)  # one from before rearm() may be left
        return self.received
