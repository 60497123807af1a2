"""The cheapest way to keep one restore point, in bytes, given what is kept anyway.

Owns: which objects lead from a snapshot to a txid. The same rules as those of a restore:
objects are joined end to end, only the first may begin before the snapshot, none crosses the
start of a generation. Pure.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection
from dataclasses import dataclass

from replicator.archive.inventory import Inventory, LogItem, Object


@dataclass(frozen=True, slots=True)
class _Step:
    """The cheapest way to a txid: its cost in bytes, its newest object, the way before that."""

    cost: int
    item: Object
    generation: str
    before: _Step | None = None


class Paths:
    """Ways through one inventory. Built once, asked often."""

    def __init__(self, inventory: Inventory) -> None:
        self._snapshots = inventory.trusted
        self._txids = [item.txid for item in self._snapshots]
        self._by_last = sorted(inventory.log, key=lambda item: (item.last, -item.first))
        self._lasts = [item.last for item in self._by_last]

    def cheapest(
        self, goal: int, kept: Collection[str], ends: Collection[str] | None = None
    ) -> list[Object] | None:
        """The objects of the way to ``goal`` that adds the fewest bytes to ``kept``, oldest
        first; None when no way is left. ``ends`` are the keys the way may end with."""
        way: list[Object] = []
        step = self._explore(goal, kept, ends).get(goal)
        while step is not None:
            way.append(step.item)
            step = step.before
        return way[::-1] or None

    def _explore(
        self, goal: int, kept: Collection[str], ends: Collection[str] | None
    ) -> dict[int, _Step]:
        """The cheapest way to each txid from the newest kept snapshot on up to the goal. If any
        older snapshot leads there, so does that one."""
        usable = [
            item
            for item in self._snapshots[: bisect_right(self._txids, goal)]
            if item.txid < goal or ends is None or item.key in ends
        ]
        start = next((at for at in range(len(usable) - 1, -1, -1) if usable[at].key in kept), 0)
        begun = {
            item.txid: _Step(_cost(item, kept), item, item.generation) for item in usable[start:]
        }
        steps = dict(begun)
        if begun:
            for item, end in self._between(min(begun), goal):
                if end < goal or ends is None or item.key in ends:
                    self._relax(steps, begun, item, end, kept)
        return steps

    def _between(self, base: int, goal: int) -> list[tuple[LogItem, int]]:
        """Items that lead beyond ``base`` and not beyond ``goal``, with their ends, by end."""
        low, high = bisect_right(self._lasts, base), bisect_right(self._lasts, goal)
        inside = [(item, item.last) for item in self._by_last[low:high]]
        over = [
            (item, goal) for item in self._by_last[high:] if item.first <= goal and item.divisible
        ]
        return inside + over

    @staticmethod
    def _relax(
        steps: dict[int, _Step],
        begun: dict[int, _Step],
        item: LogItem,
        end: int,
        kept: Collection[str],
    ) -> None:
        ways = [step for txid, step in begun.items() if item.first <= txid < end]
        if item.first - 1 in steps:
            ways.append(steps[item.first - 1])
        for before in ways:
            cost = before.cost + _cost(item, kept)
            if item.generation in (None, before.generation) and (
                end not in steps or cost < steps[end].cost
            ):
                steps[end] = _Step(cost, item, before.generation, before)


def _cost(item: Object, kept: Collection[str]) -> int:
    return 0 if item.key in kept else max(1, item.size)
