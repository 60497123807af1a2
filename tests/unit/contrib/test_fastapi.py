"""FastAPI: a durable request is answered after its commit, and after that of its dependencies."""

import asyncio
from typing import Annotated

import pytest

from replicator.contrib.starlette import durable_request, health_router
from tests.helpers.asgi import request
from tests.helpers.fake_handles import FakeHandle

pytestmark = pytest.mark.frameworks


@pytest.fixture
def shop():
    """An application with one durable route, whose session commits after its function."""
    from fastapi import Depends, FastAPI

    app = FastAPI()
    app.state.replicator = FakeHandle()
    app.state.commits = []
    app.include_router(health_router())
    durable = durable_request(timeout=1.5)
    app.state.durable = durable

    def session():
        yield
        app.state.commits.append(len(app.state.replicator.flushes))

    @app.post("/orders", dependencies=[durable])
    def add(session: Annotated[None, Depends(session, scope="function")]):
        return {"added": True}

    return app


def test_the_response_is_sent_after_the_commit_and_the_flush(shop):
    """The commit of a dependency comes first, then the flush, then the first byte."""
    seen = []
    handle = shop.state.replicator
    answer = asyncio.run(
        request(shop, "POST", "/orders", on_start=lambda status: seen.append(list(handle.flushes)))
    )
    assert (answer.status, seen, shop.state.commits) == (200, [[1.5]], [0])


def test_a_request_that_is_not_durable_is_503(shop):
    """The client learns that the change is stored, and nothing about the server."""
    shop.state.replicator.away = True
    answer = asyncio.run(request(shop, "POST", "/orders"))
    assert (answer.status, answer.json()["detail"]["error"]) == (503, "not_durable")
    assert b"secret" not in answer.body


def test_users_tests_replace_the_dependency(shop):
    """An application under test needs no sidecar."""
    shop.state.replicator.away = True
    shop.dependency_overrides[shop.state.durable.dependency] = lambda: None
    assert asyncio.run(request(shop, "POST", "/orders")).status == 200


def test_the_router_has_the_health_check(shop):
    """Without a lifespan its answer is 503."""
    assert asyncio.run(request(shop, path="/health/replication")).json()["state"] == "unknown"
