"""A store whose objects are sealed with an integrity key.

Owns the keys, and hands them to the writers and readers of objects, which make and check the seals
(:mod:`replicator.format.integrity`). Refuses to change any call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from replicator.format.integrity import Integrity
from replicator.store.base import Store
from replicator.store.wrapper import StoreWrapper

T = TypeVar("T")


def sealed(store: Store, integrity: Integrity | None) -> Store:
    """``store``, with these keys if there are any."""
    return store if integrity is None else SealedStore(store, integrity)


class SealedStore(StoreWrapper):
    """Passes every call on. Its :attr:`integrity` is the one given."""

    def __init__(self, store: Store, integrity: Integrity) -> None:
        super().__init__(store)
        self._integrity = integrity

    @property
    def integrity(self) -> Integrity:
        return self._integrity

    def around(self, call: str, key: str, proceed: Callable[[], T]) -> T:
        return proceed()
