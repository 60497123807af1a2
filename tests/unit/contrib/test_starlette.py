"""Starlette: the lifespan replicates, the health check answers, responses wait for the bucket."""

import asyncio
import contextlib
import sqlite3
import threading

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Route

from replicator import SqliteReplicatorConfig, restore
from replicator.contrib.starlette import DurableRequests, health_route, replicated, running
from replicator.errors import NotDurable, ReplicatorError
from tests.helpers.asgi import lifespan, request
from tests.helpers.fake_handles import FakeHandle


async def add(request):
    """Answers as an application that has committed."""
    return JSONResponse({"added": True})


async def fail(request):
    """Answers as an application that refuses its input."""
    return JSONResponse({"wrong": True}, 422)


def application(handle=None, **options):
    """An application with the middleware; ``handle`` replaces that of the lifespan."""
    if handle is not None:
        options["wait"] = handle.wait_async
    app = Starlette(
        routes=[
            Route("/", add, methods=["GET", "POST"]),
            Route("/fail", fail, methods=["POST"]),
            health_route(),
        ],
        middleware=[Middleware(DurableRequests, **options)],
    )
    if handle is not None:
        app.state.replicator = handle
    return app


def test_a_response_to_a_write_is_sent_after_the_wait():
    """The first byte of the response comes after the wait, with its timeout."""
    handle, seen = FakeHandle(), []
    app = application(handle, timeout=1.5)
    answer = asyncio.run(
        request(app, "POST", on_start=lambda status: seen.append((status, list(handle.waits))))
    )
    assert seen == [(200, [1.5])]
    assert answer.json() == {"added": True}


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("POST", "/fail")])
def test_reads_and_failures_do_not_wait(method, path):
    """They cost no request to the sidecar."""
    handle = FakeHandle()
    asyncio.run(request(application(handle), method, path))
    assert handle.waits == []


def test_a_write_that_is_not_durable_is_503():
    """The client learns that the change is stored, and nothing about the server."""
    handle = FakeHandle()
    handle.away = True
    answer = asyncio.run(request(application(handle), "POST"))
    assert answer.status == 503
    assert (answer.json()["error"], answer.json()["reason"]) == ("not_durable", "not_durable")
    assert b"secret" not in answer.body


def test_a_degraded_write_has_a_header():
    """With `degrade` the client gets the response of the application, marked."""
    handle = FakeHandle()
    handle.away = True
    answer = asyncio.run(request(application(handle, on_failure="degrade"), "POST"))
    assert (answer.status, answer.headers["replication-durable"]) == (200, "no")
    assert answer.json() == {"added": True}


def test_an_application_without_a_lifespan_promises_nothing():
    """A forgotten lifespan is an error, not a write that only seems durable."""
    answer = asyncio.run(request(application(), "POST"))
    assert (answer.status, answer.json()["reason"]) == (503, "not_running")


def test_the_health_of_an_application_without_a_lifespan_is_unknown():
    """503, as for a sidecar that does not answer."""
    answer = asyncio.run(request(application(), path="/health/replication"))
    assert (answer.status, answer.json()["state"]) == (503, "unknown")


def test_the_lifespan_replicates_around_that_of_the_application(tmp_path):
    """The application starts within the replication; its last commit, at its own end, is in the
    bucket; the health check of another process' sidecar agrees."""
    database, bucket = tmp_path / "app.db", tmp_path / "bucket"
    bucket.mkdir()
    config = SqliteReplicatorConfig(db_path=database, url=f"file://{bucket}", prefix="app.db")

    @contextlib.asynccontextmanager
    async def own(app):
        with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("CREATE TABLE t (x)")
            assert app.state.replicator.status().running
            yield {"connection": 1}
            connection.execute("INSERT INTO t VALUES ('last')")

    app = Starlette(
        routes=[health_route(), health_route("/other", database=database)],
        lifespan=replicated(lambda: config, own),
    )

    async def run():
        async with lifespan(app) as state:
            await asyncio.to_thread(app.state.replicator.flush, 60)
            answers = [await request(app, path=path) for path in ("/health/replication", "/other")]
        return state, [(answer.status, answer.json()["healthy"]) for answer in answers]

    assert asyncio.run(run()) == ({"connection": 1}, [(200, True), (200, True)])
    restore(url=f"file://{bucket}", prefix="app.db", output=tmp_path / "copy.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "copy.db")) as connection:
        assert connection.execute("SELECT x FROM t").fetchall() == [("last",)]


class Block:
    """A replicator whose start waits, to be cancelled meanwhile."""

    def __init__(self, failure=None):
        self.calls, self.failure = [], failure
        self.starting, self.go = threading.Event(), threading.Event()

    def start(self):
        self.starting.set()
        assert self.go.wait(60)
        self.calls.append("start")
        if self.failure:
            raise self.failure

    def __exit__(self, kind, error, trace):
        self.calls.append(kind)


def test_a_cancelled_start_is_stopped_again():
    """A start runs in a thread to its end; the replicator that it left is flushed and stopped."""
    block = Block()

    async def use():
        async with running(block):
            pytest.fail("cancelled before")

    async def cancel():
        task = asyncio.create_task(use())
        await asyncio.to_thread(block.starting.wait)
        task.cancel()
        block.go.set()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert block.calls == ["start", asyncio.CancelledError]


def test_a_start_that_failed_is_not_stopped():
    """Its error is that of the lifespan."""
    block = Block(NotDurable("no"))
    block.go.set()

    async def use():
        async with running(block):
            pytest.fail("not started")

    with pytest.raises(ReplicatorError):
        asyncio.run(use())
    assert block.calls == ["start"]
