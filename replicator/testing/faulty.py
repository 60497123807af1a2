"""A store that fails by a script of calls, counts and effects.

    store = FaultyStore(MemoryStore())
    store.script("put", raising(StoreUnavailable("503")), times=3)
    store.script("put", answer_lost, nth=2, key="wal/")

Owns the script. An effect is a function that receives the call and decides its outcome. Refuses to
fail without a script.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from replicator.errors import ReplicatorError, StoreUnavailable
from replicator.store.base import ObjectInfo, Store
from replicator.store.wrapper import StoreWrapper

T = TypeVar("T")
Effect = Callable[[Callable[[], Any]], Any]


def raising(error: ReplicatorError) -> Effect:
    """The call fails and has no effect."""

    def effect(_: Callable[[], Any]) -> Any:
        raise error

    return effect


def answer_lost(proceed: Callable[[], Any]) -> Any:
    """The call takes effect, but its answer is lost."""
    proceed()
    raise StoreUnavailable("the answer was lost")


@dataclass(frozen=True, slots=True)
class Hang:
    """The call waits until the test sets ``released``. It sets ``entered`` before it waits."""

    entered: threading.Event
    released: threading.Event

    def __call__(self, proceed: Callable[[], Any]) -> Any:
        self.entered.set()
        self.released.wait()
        return proceed()


def hanging() -> Hang:
    return Hang(threading.Event(), threading.Event())


def truncated(size: int) -> Effect:
    """A ``get`` returns at most ``size`` bytes, as if the object ended there."""
    return lambda proceed: proceed()[:size]


def corrupted(offset: int = 0) -> Effect:
    """A ``get`` returns its bytes with one bit flipped at ``offset`` (negative: from the
    end)."""

    def effect(proceed: Callable[[], Any]) -> bytes:
        data = bytearray(proceed())
        data[offset] ^= 1
        return bytes(data)

    return effect


def broken_after(count: int, error: ReplicatorError) -> Effect:
    """A ``list`` yields ``count`` objects, then fails."""

    def effect(proceed: Callable[[], Any]) -> Iterator[ObjectInfo]:
        yield from itertools.islice(proceed(), count)
        raise error

    return effect


@dataclass(slots=True)
class _Rule:
    call: str
    effect: Effect
    skip: int  # matching calls that still pass
    left: int | None  # matching calls still affected; None: all of them
    key: str

    def matches(self, call: str, key: str) -> bool:
        if call != self.call or self.key not in key or self.left == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.left is not None:
            self.left -= 1
        return True


class FaultyStore(StoreWrapper):
    """``store``, changed by the script. If several rules match a call, the last one is outermost.
    ``calls`` counts every call by name."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._lock = threading.Lock()
        self._rules: list[_Rule] = []
        self.calls: dict[str, int] = {}

    def script(
        self, call: str, effect: Effect, *, nth: int = 1, times: int | None = 1, key: str = ""
    ) -> None:
        """From the ``nth`` call on (from now, 1 is the next), ``times`` calls (None: for
        ever) of the method ``call`` on keys that contain ``key`` get ``effect``."""
        if not hasattr(Store, call):
            raise ValueError(f"a store has no method {call!r}")
        with self._lock:
            self._rules.append(_Rule(call, effect, nth - 1, times, key))

    def heal(self) -> None:
        """Forget the script. Calls that hang still wait until they are released."""
        with self._lock:
            self._rules.clear()

    def around(self, call: str, key: str, proceed: Callable[[], T]) -> T:
        with self._lock:
            self.calls[call] = self.calls.get(call, 0) + 1
            effects = [rule.effect for rule in self._rules if rule.matches(call, key)]
        for effect in effects:
            proceed = _under(effect, proceed)
        return proceed()


def _under(effect: Effect, proceed: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: effect(proceed)
