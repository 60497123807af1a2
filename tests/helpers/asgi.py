"""A client of an ASGI application in this process: its lifespan, and single requests."""

import asyncio
import contextlib
import json


class Answer:
    """One response: its status, its headers, and its body."""

    def __init__(self):
        self.status, self.headers, self.body = None, {}, b""

    def take(self, message):
        if message["type"] == "http.response.start":
            assert self.status is None, "two responses"
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message.get("body", b"")

    def json(self):
        return json.loads(self.body)


async def request(app, method="GET", path="/", body=b"", on_start=lambda status: None):
    """The response to one request; ``on_start`` is called when its first byte would be sent."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "scheme": "http",
    }
    answer = Answer()
    sent = False

    async def receive():
        nonlocal sent
        if sent:
            await asyncio.Event().wait()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        answer.take(message)
        if message["type"] == "http.response.start":
            on_start(message["status"])

    await app(scope, receive, send)
    return answer


@contextlib.asynccontextmanager
async def lifespan(app):
    """The application between its start and its end, as a server runs it."""
    orders, replies = asyncio.Queue(), asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    server = asyncio.create_task(app(scope, orders.get, replies.put))
    await orders.put({"type": "lifespan.startup"})
    reply = await replies.get()
    assert reply["type"] == "lifespan.startup.complete", reply
    yield scope["state"]
    await orders.put({"type": "lifespan.shutdown"})
    reply = await replies.get()
    assert reply["type"] == "lifespan.shutdown.complete", reply
    await server
