"""The wall clock, in the unit of the format. Refuses to measure durations: the clock may jump."""

from __future__ import annotations

import time


def now_ms() -> int:
    """Milliseconds since the epoch, UTC."""
    return time.time_ns() // 1_000_000
