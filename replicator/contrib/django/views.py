"""A health view: is each database replicated, and is every commit in the bucket in time?

    path("health/replicator", replicator.contrib.django.views.health)

Owns: the answer, 200 or 503, as JSON. Refuses: paths, addresses and messages of errors, which are
not for strangers.
"""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache

from replicator.contrib.django.replicated import handle_of, replicated

SHOWN = ("running", "healthy", "state", "lag_seconds", "txid", "durable_txid")


@never_cache
def health(_: HttpRequest) -> JsonResponse:
    """200 if every database of ``REPLICATOR`` is healthy, else 503; the state of each."""
    databases = {alias: state_of(alias) for alias in replicated()}
    healthy = all(each["healthy"] for each in databases.values())
    return JsonResponse(
        {"healthy": healthy, "databases": databases}, status=200 if healthy else 503
    )


def state_of(alias: str) -> dict[str, Any]:
    """The state of one database, as the sidecar reports it."""
    handle = handle_of(alias)
    if handle is None:  # no server started it in this process
        return {"running": False, "healthy": False, "state": "stopped"}
    status = handle.status()
    return {name: getattr(status, name) for name in SHOWN}
