"""A store that is read slowly, and that can be told to stop.

For work in the background which must not disturb: its reads go one after another and keep to
a bandwidth, and :class:`Cancelled` ends it at the next call.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from replicator.errors import Cancelled
from replicator.store.base import Store
from replicator.store.wrapper import StoreWrapper

T = TypeVar("T")


class ThrottledStore(StoreWrapper):
    """``store``, read at ``bandwidth`` bytes a second at most (0: as fast as it goes).

    ``stopping`` ends it. The clock is passed in, so that a test needs no time. Closing it does
    not close ``store``.
    """

    def __init__(
        self,
        store: Store,
        bandwidth: int,
        stopping: threading.Event,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(store)
        self._bandwidth = bandwidth
        self._stopping = stopping
        self._now = now
        self._free_at = 0.0  # until then the bytes that came are being paid for
        self._turn = threading.Lock()

    def around(self, call: str, key: str, proceed: Callable[[], T]) -> T:
        if not self._bandwidth or call != "get":
            self._rest(0.0)
            return proceed()
        with self._turn:
            self._rest(self._free_at - self._now())
            answer = proceed()
            assert isinstance(answer, bytes)
            self._free_at = max(self._now(), self._free_at) + len(answer) / self._bandwidth
            return answer

    def _rest(self, seconds: float) -> None:
        if self._stopping.wait(max(0.0, seconds)):
            raise Cancelled("given up, because the replicator stops")

    def close(self) -> None:
        pass
