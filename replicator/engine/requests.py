"""Requests that the capture thread has received and not answered yet.

Owns: the list. A request leaves it only with its answer, so a failure in the middle leaves it for
the next join, or for the end. Refuses: to serve.
"""

from __future__ import annotations

from collections.abc import Iterable

from replicator.errors import ReplicatorError
from replicator.system.mailbox import Request, Wanted

SNAPSHOTS = (Wanted.SNAPSHOT, Wanted.WHOLE_SNAPSHOT)


class Requests:
    """Used by the capture thread alone; by the thread that stops it after its end."""

    def __init__(self) -> None:
        self._open: list[Request] = []

    def add(self, request: Request) -> None:
        self._open.append(request)

    def of(self, *wanted: Wanted) -> list[Request]:
        """The open requests of these kinds, oldest first."""
        self._open = [request for request in self._open if not request.done()]
        return [request for request in self._open if request.wanted in wanted]

    def answer(self, requests: Iterable[Request], txid: int) -> None:
        for request in requests:
            request.set_result(txid)

    def refuse(self, requests: Iterable[Request], error: ReplicatorError) -> None:
        for request in requests:
            if not request.done():
                request.set_exception(error)

    def refuse_all(self, error: ReplicatorError) -> None:
        self.refuse(self._open, error)
        self._open = []
