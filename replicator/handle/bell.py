"""A pause that another thread ends.

Owns: the wait for descriptors and for the bell. Refuses: to serve a forked child.
"""

from __future__ import annotations

import os
import select
import time

from replicator.errors import Cancelled


class Bell:
    """Any thread may ring it; then every wait ends, now and later."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def ring(self) -> None:
        if self._descriptor >= 0:
            os.eventfd_write(self._descriptor, 1)

    def close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def wait(self, seconds: float | None, *descriptors: int) -> bool:
        """True once one of the descriptors can be read or is at its end, False after ``seconds``.
        ``Cancelled`` once the bell rang."""
        poller = select.poll()
        poller.register(self._descriptor, select.POLLIN)
        for descriptor in descriptors:
            poller.register(descriptor, select.POLLIN | select.POLLRDHUP)
        found = poller.poll(None if seconds is None else max(0.0, seconds) * 1000)
        if any(descriptor == self._descriptor for descriptor, _ in found):
            raise Cancelled("the handle stops")
        return bool(found)


def left(until: float) -> float:
    """Seconds until a moment of the monotonic clock."""
    return max(0.0, until - time.monotonic())


def sooner(until: float | None, other: float) -> float:
    """The earlier of two moments; None is never."""
    return other if until is None else min(until, other)
