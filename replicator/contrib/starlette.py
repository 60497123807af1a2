"""Starlette and FastAPI: a lifespan that replicates, a health check, and durable requests.

    app = FastAPI(lifespan=replicated(config))
    app.include_router(health_router())

    @app.post("/orders", dependencies=[durable_request()])
    def add(order: Order): ...                     # its 200 follows its commit to the bucket

Owns: the handle of each application, as ``app.state.replicator``. Refuses: to block the event loop.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import Any, Literal, TypeAlias

from anyio import CancelScope, CapacityLimiter
from anyio.lowlevel import RunVar
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from replicator import Position, SqliteReplicator, SqliteReplicatorConfig
from replicator.app.aio import wait_durable
from replicator.app.state import status_of
from replicator.contrib.health import UNAVAILABLE, UNKNOWN, HealthProbe
from replicator.contrib.refusal import refusal
from replicator.errors import NotRunning, ReplicatorError

__all__ = [
    "DurableRequests",
    "durable_request",
    "health_route",
    "health_router",
    "replicated",
]

PATH = "/health/replication"
WRITING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
FAILED = 400  # status codes from here on report a failure of the application
CHECKS = 4  # threads that health checks may use at a time

Lifespan: TypeAlias = Callable[[Any], contextlib.AbstractAsyncContextManager[Any]]
Message: TypeAlias = Mapping[str, Any]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
OnFailure: TypeAlias = Literal["raise", "degrade"]
Wait: TypeAlias = Callable[..., Awaitable[Position]]

_checks: RunVar[Any] = RunVar("replicator_checks")


def replicated(
    config: SqliteReplicatorConfig | Callable[[], SqliteReplicatorConfig],
    lifespan: Lifespan | None = None,
    *,
    prepare: str = "",
    log: str | os.PathLike[str] | None = None,
) -> Lifespan:
    """A lifespan that replicates from the start of each worker to its end.

    ``lifespan`` is that of the application: it begins after the start, which restores a lost
    database with ``auto_restore``, and ends before the last flush (30 s at most). ``config`` may be
    a function that returns it, so that only a start reads the environment. ``prepare`` and ``log``
    are those of ``SqliteReplicator``, whose errors end the start of the worker.
    """

    @contextlib.asynccontextmanager
    async def around(app: Any) -> AsyncIterator[Any]:
        known = config() if callable(config) else config
        async with running(SqliteReplicator(known, prepare=prepare, log=log)) as replicator:
            app.state.replicator = replicator
            app.state.replication_health = HealthProbe(replicator.status)
            if lifespan is None:
                yield
            else:
                async with lifespan(app) as state:
                    yield state

    return around


@contextlib.asynccontextmanager
async def running(replicator: SqliteReplicator) -> AsyncIterator[SqliteReplicator]:
    """The block of a replicator, in threads; a cancelled task flushes and stops all the same."""
    block = _Block(replicator)
    error: BaseException | None = None
    try:
        await run_sync(block.start)
        yield replicator
    except BaseException as raised:
        error = raised
        raise
    finally:
        with CancelScope(shield=True):
            await run_sync(block.end, error)


class _Block:
    """The two ends of a block. A start that was cancelled continues in its thread: the end waits
    for it, and a start that comes later does nothing."""

    def __init__(self, replicator: SqliteReplicator) -> None:
        self._replicator, self._lock = replicator, threading.Lock()
        self._started = self._ended = False

    def start(self) -> None:
        with self._lock:
            if not self._ended:
                self._replicator.start()
                self._started = True

    def end(self, error: BaseException | None) -> None:
        with self._lock:
            self._ended = True
            if self._started:
                self._replicator.__exit__(None if error is None else type(error), error, None)


# ---------------------------------------------------------------------------------- health


def health_route(
    path: str = PATH,
    *,
    database: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Any:
    """A route that answers 200 while the database is replicated and 503 otherwise, with the figures
    as JSON.

    Without ``database`` it is that of :func:`replicated`; otherwise one that another process
    replicates, for example ``replicator run``. An answer is at most 1 s old, and a sidecar that
    hangs delays it by 1 s. No other request waits for it.
    """
    own = None
    if database is not None:
        own = HealthProbe(partial(status_of, database, cache_dir=cache_dir))

    async def check(request: Any) -> Any:
        probe = own or getattr(request.app.state, "replication_health", None)
        report = await run_sync(probe.report, limiter=_limiter()) if probe else UNKNOWN
        return JSONResponse(report.to_dict(), report.http_status)

    return Route(path, check, methods=["GET"], name="replication_health")


def _limiter() -> CapacityLimiter:
    """That of this event loop."""
    try:
        limiter = _checks.get()
    except LookupError:
        limiter = CapacityLimiter(CHECKS)
        _checks.set(limiter)
    return limiter


def health_router(path: str = PATH, **options: Any) -> Any:
    """The route of :func:`health_route` as a router of FastAPI."""
    from fastapi import APIRouter

    return APIRouter(routes=[health_route(path, **options)])


# ------------------------------------------------------------------------- durable requests


async def wait_request(app: Any, seconds: float, wait: Wait = wait_durable) -> None:
    """Wait until everything that was committed is in the bucket, ``seconds`` at most.

    Raises ``NotDurable``, or ``NotRunning`` without :func:`replicated`.
    """
    replicator = getattr(app.state, "replicator", None)
    if replicator is None:
        raise NotRunning(
            "the application does not replicate",
            hint="give it lifespan=replicated(config), and run the lifespan in tests",
        )
    config = replicator.config
    await wait(config.database, timeout=seconds, cache_dir=config.cache)


def durable_request(timeout: float = 2.0, *, wait: Wait = wait_durable) -> Any:
    """A dependency of FastAPI: the response is sent after the commits of the function are in the
    bucket, or after ``timeout`` seconds with status 503.

    Status 503 does not undo the commit: the request must not be repeated. A commit in another
    dependency with ``yield`` is included if that one has ``scope="function"`` and comes later in
    the list of parameters. Needs FastAPI 0.121; tests replace it by its ``dependency``.
    """
    from fastapi import Depends, HTTPException

    async def waited(request: Request) -> AsyncIterator[None]:
        yield
        try:
            await wait_request(request.app, timeout, wait)
        except ReplicatorError as error:
            raise HTTPException(UNAVAILABLE, refusal(error)) from error

    return Depends(waited, scope="function")  # that of a request ends after its response


class DurableRequests:
    """A middleware: a response to a request that may write is sent after all commits so far are in
    the bucket.

        app.add_middleware(DurableRequests, timeout=2.0)

    Concerns responses below 400 to the given ``methods``. After ``timeout`` seconds the client gets
    status 503 and must not repeat the request; with ``on_failure="degrade"`` it gets the response
    of the application, with the header ``replication-durable: no``.
    """

    def __init__(
        self,
        app: Callable[..., Awaitable[None]],
        *,
        timeout: float = 2.0,
        methods: Collection[str] = WRITING,
        on_failure: OnFailure = "raise",
        wait: Wait = wait_durable,
    ) -> None:
        self._app, self._timeout, self._wait = app, timeout, wait
        self._methods, self._on_failure = methods, on_failure

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in self._methods:
            await self._app(scope, receive, send)
            return
        refused = False

        async def waiting_send(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] < FAILED:
                try:
                    await wait_request(scope["app"], self._timeout, self._wait)
                except ReplicatorError as error:
                    document = refusal(error)
                    if self._on_failure == "raise":
                        refused = True
                        await JSONResponse(document, UNAVAILABLE)(scope, receive, send)
                    else:
                        message = _degraded(message)
            if not refused:
                await send(message)

        await self._app(scope, receive, waiting_send)


def _degraded(start: Message) -> Message:
    return {**start, "headers": [*start.get("headers", ()), (b"replication-durable", b"no")]}
