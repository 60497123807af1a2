"""The budget of appends: some may begin at once, and one more each interval.

A commit now and then leaves at once, also the third within a second; a steady stream costs one
append each interval. In the long run the number of requests is that of the interval alone. (The
generic cell rate algorithm: one time stands for the tokens of a bucket.)

Owns: the arithmetic. Refuses: to look at a clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class UploadBudget:
    """Up to ``burst`` appends at once, one more each ``interval`` (seconds). Times are
    monotonic."""

    interval: float
    burst: int = 1
    full_at: float = float("-inf")

    @property
    def ready_at(self) -> float:
        """The earliest time at which the budget has room for an append."""
        return self.full_at - (self.burst - 1) * self.interval

    def spend(self, now: float) -> UploadBudget:
        """After an append that begins ``now``. One that the budget has no room for, such as that
        of a flush, makes no debt beyond an empty budget."""
        full_at = max(self.full_at, now) + self.interval
        return replace(self, full_at=min(full_at, now + self.burst * self.interval))
