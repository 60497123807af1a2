"""Work on many items by a few threads, in memory that does not grow with the items.

Owns: the threads, and how many items are under way. Refuses: to catch an error of the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_parallel(
    work: Callable[[T], R], items: Iterable[T], threads: int, *, abandon: Callable[[], object]
) -> Iterator[R]:
    """The result of ``work`` for each item, as they end. After an error, and if the caller stops
    to iterate, ``abandon`` is called, and items that have not begun are dropped."""
    waiting: set[Future[R]] = set()
    with ThreadPoolExecutor(threads, "replicator-parallel") as pool:
        try:
            for item in items:
                waiting.add(pool.submit(work, item))
                while len(waiting) > threads:
                    ended, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from (each.result() for each in ended)
            while waiting:
                ended, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (each.result() for each in ended)
        except BaseException:
            abandon()
            for each in waiting:
                each.cancel()
            raise
