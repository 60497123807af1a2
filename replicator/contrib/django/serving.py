"""Starts the replicators in a process that serves requests.

Each server builds a handler of Django, and the handler loads its middleware: gunicorn in each
worker, or with ``--preload`` in the master before it forks; ``runserver`` in the child of its
reloader; uvicorn in each worker. No management command does, so ``migrate``, ``shell`` and
``collectstatic`` start nothing.

Owns: that moment. Costs a request nothing: Django drops the middleware.
"""

from __future__ import annotations

from typing import Any, NoReturn

from django.core.exceptions import MiddlewareNotUsed
from django.utils.decorators import sync_and_async_middleware

from replicator.contrib.django.replicated import replicated, start, under_test


@sync_and_async_middleware
def start_replicators(_: Any) -> NoReturn:
    """Start the replicator of each alias in ``REPLICATOR``, unless tests run.

    Raises the errors of ``SqliteReplicator.start()``: a server that cannot replicate does not
    serve.
    """
    for alias in replicated():
        if not under_test(alias):
            start(alias)
    raise MiddlewareNotUsed
