"""Commits that are in the bucket when the code continues.

    from replicator.contrib.django import transaction

    with transaction.durable_atomic(timeout=2):
        order.save()
    # the machine may be lost now

    with django.db.transaction.atomic():
        order.save()
        transaction.on_durable(lambda: charge(order))

A ``NotDurable`` after the COMMIT is no failure of the transaction: it is in the database, it will
be sent, and it must not be repeated.

Owns: the order of COMMIT, wait and callback. Refuses: to wait inside a transaction. In tests
nothing is replicated, so there is no wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from django.db import DEFAULT_DB_ALIAS, transaction

import replicator
from replicator import Position
from replicator.contrib.django.replicated import entry, start, under_test

DEFAULT_TIMEOUT = 5.0  # seconds


def wait_durable(using: str | None = None, timeout: float = DEFAULT_TIMEOUT) -> Position | None:
    """Waits until every commit so far is in the bucket; its position, None in tests.

    ``NotDurable`` after ``timeout`` seconds, ``Fenced`` if another writer owns the archive.
    ``TransactionManagementError`` inside a transaction, whose commit is still to come.
    """
    alias = using or DEFAULT_DB_ALIAS
    entry(alias)
    if under_test(alias):
        return None
    connection = transaction.get_connection(alias)
    if connection.in_atomic_block or not connection.get_autocommit():
        raise transaction.TransactionManagementError(
            "the transaction is not committed yet; use on_durable() to wait after it"
        )
    config = start(alias).config
    return replicator.wait_durable(config.source, timeout=timeout, cache_dir=config.cache)


@contextmanager
def durable_atomic(using: str | None = None, timeout: float = DEFAULT_TIMEOUT) -> Iterator[None]:
    """``atomic`` that waits, after its COMMIT, until the transaction is in the bucket.

    It is the outermost block: ``RuntimeError`` inside another one. After an exception of the block
    it rolls back, and does not wait.
    """
    alias = using or DEFAULT_DB_ALIAS
    entry(alias)
    if not under_test(alias):
        start(alias)  # its errors come before the block
    with transaction.atomic(using=using, durable=True):
        yield
    wait_durable(using, timeout)


def on_durable(
    callback: Callable[[], object],
    using: str | None = None,
    *,
    timeout: float = DEFAULT_TIMEOUT,
    robust: bool = False,
) -> None:
    """Calls ``callback`` once the transaction is in the bucket; at once if none is open.

    The thread waits for that after the COMMIT of the outermost block, as it runs the functions of
    ``on_commit``. If it takes longer than ``timeout`` seconds, ``callback`` is not called, and the
    block raises ``NotDurable``; with ``robust`` Django logs that instead.
    """
    entry(using or DEFAULT_DB_ALIAS)
    transaction.on_commit(partial(_after, callback, using, timeout), using, robust)


def _after(callback: Callable[[], object], using: str | None, timeout: float) -> None:
    wait_durable(using, timeout)
    callback()
