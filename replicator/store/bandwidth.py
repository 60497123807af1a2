"""Limits the bandwidth of a store's reads, and cancels them.

For work in the background, which must not slow down other work: its reads run one after another and
keep to a bandwidth, and :class:`Cancelled` ends it at the next call. Owns the pacing. Refuses to
delay a write.
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
    """``store``, read with at most ``bandwidth`` bytes a second (0: no limit).

    Once ``stopping`` is set, every call raises ``Cancelled``. Closing does not close ``store``.
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
        self._free_at = 0.0  # time at which the bytes read so far fit the bandwidth
        self._turn = threading.Lock()

    def around(self, call: str, key: str, proceed: Callable[[], T]) -> T:
        if not self._bandwidth or call != "get":
            self._wait(0.0)
            return proceed()
        with self._turn:
            self._wait(self._free_at - self._now())
            answer = proceed()
            assert isinstance(answer, bytes)
            self._free_at = max(self._now(), self._free_at) + len(answer) / self._bandwidth
            return answer

    def _wait(self, seconds: float) -> None:
        if self._stopping.wait(max(0.0, seconds)):
            raise Cancelled("cancelled, because the replicator stops")

    def close(self) -> None:
        pass
