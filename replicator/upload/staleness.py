"""How long ago the log was last seen to be ours, by the clock that ran longest.

A key at which we would append is taken once somebody else did; but minutes later it may be free
again, when his segments were merged and the originals deleted. So after a pause the log is looked
at before the next append, and after an append that took as long. No other clock is compared with
ours: what counts is how long we were away.
"""

from __future__ import annotations

import time
from collections.abc import Callable

LONGEST = 60.0  # seconds; a merge waits five minutes before the segments under it go

Reading = tuple[float, ...]


def read_clocks() -> Reading:
    """One stands still while the machine sleeps, another is set back, a third is missing."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return (
        time.monotonic(),
        time.time(),
        time.monotonic() if boot is None else time.clock_gettime(boot),
    )


class Freshness:
    """Used by the upload thread alone."""

    def __init__(self, clocks: Callable[[], Reading]) -> None:
        self._clocks = clocks
        self._seen: Reading = ()

    def now(self) -> Reading:
        return self._clocks()

    def seen(self, at: Reading) -> None:
        """At that time, or later, the log was seen to be ours."""
        self._seen = at

    @property
    def stale(self) -> bool:
        """Whether too much may have happened since; also as long as nothing was seen."""
        return not self._seen or any(
            now - then > LONGEST for now, then in zip(self._clocks(), self._seen, strict=True)
        )
