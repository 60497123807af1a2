"""FastAPI: a durable request is answered after its commit, and after that of its dependencies."""

import asyncio
from typing import Annotated

import pytest

from replicator.contrib.starlette import durable_request, health_router
from tests.helpers.asgi import request
from tests.helpers.fake_handles import FakeHandle

pytestmark = pytest.mark.frameworks


@pytest.fixture
def durable_shop():
    """An application with one durable route, whose session commits after its function."""
    from fastapi import Depends, FastAPI

    app = FastAPI()
    app.state.replicator = FakeHandle()
    app.state.commits = []
    app.include_router(health_router())
    durable = durable_request(timeout=1.5, wait=app.state.replicator.wait_async)
    app.state.durable = durable

    def session():
        yield
        app.state.commits.append(len(app.state.replicator.waits))

    @app.post("/orders", dependencies=[durable])
    def add(session: Annotated[None, Depends(session, scope="function")]):
        return {"added": True}

    return app


def test_the_response_is_sent_after_the_commit_and_the_wait(durable_shop):
    """The commit of a dependency comes first, then the wait, then the first byte."""
    seen = []
    handle = durable_shop.state.replicator
    answer = asyncio.run(
        request(
            durable_shop, "POST", "/orders", on_start=lambda status: seen.append(list(handle.waits))
        )
    )
    assert (answer.status, seen, durable_shop.state.commits) == (200, [[1.5]], [0])


def test_a_request_that_is_not_durable_is_503(durable_shop):
    """The client learns that the change is stored, and nothing about the server."""
    durable_shop.state.replicator.away = True
    answer = asyncio.run(request(durable_shop, "POST", "/orders"))
    assert (answer.status, answer.json()["detail"]["error"]) == (503, "not_durable")
    assert b"secret" not in answer.body


def test_users_tests_replace_the_dependency(durable_shop):
    """An application under test needs no sidecar."""
    durable_shop.state.replicator.away = True
    durable_shop.dependency_overrides[durable_shop.state.durable.dependency] = lambda: None
    assert asyncio.run(request(durable_shop, "POST", "/orders")).status == 200


def test_the_router_has_the_health_check(durable_shop):
    """Without a lifespan its answer is 503."""
    assert (
        asyncio.run(request(durable_shop, path="/health/replication")).json()["state"] == "unknown"
    )
