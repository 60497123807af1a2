"""A proxy in front of an S3 server that counts all requests and spoils some by script.

    fault_proxy.fault(status(503), method="PUT", times=None)
    fault_proxy.fault(drop_answer, method="PUT", path="wal/")

The Host header passes through, so signatures still verify. One connection per request, whole
bodies in memory: a proxy for tests.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from dataclasses import dataclass, field
from urllib.parse import urlsplit

DRIP = 1.0  # seconds between two bytes


class Reset(Exception):
    """Cut the client off with a TCP reset."""


@dataclass
class Exchange:
    """One request on its way. ``forward()`` hands it on and returns the raw answer."""

    method: str
    path: str
    raw: bytes  # the request's head as it came
    head: bytes  # and as it is handed on
    body: bytes
    proxy: "FaultProxy"
    reader: asyncio.StreamReader  # from the client, and to it: for faults that work in pieces
    writer: asyncio.StreamWriter
    status: int | None = field(default=None)  # of the server, None if it was never asked

    @property
    def size(self):
        return int(_field(self.raw, b"content-length") or 0)

    async def forward(self):
        reader, writer = await asyncio.open_connection(*self.proxy.upstream)
        try:
            writer.write(self.head + self.body)
            await writer.drain()
            answer = await reader.read(-1)
        finally:
            writer.close()
        self.status = int(answer.split(b" ", 2)[1])
        return answer


# --------------------------------------------------------------------- faults


async def reset(exchange):
    """The request was read, never handed on; the connection is reset."""
    raise Reset


async def reset_early(exchange):
    """The connection is reset before the body is read; see `FaultProxy._exchange`."""
    raise AssertionError("never called: the body is not there yet")


async def hang(exchange):
    """No answer until the proxy is healed or stopped; then a reset."""
    await exchange.proxy.healed.wait()
    raise Reset


async def drip(exchange):
    """An answer without an end, one byte from time to time: no time limit of a client ends it."""
    healed = exchange.proxy.healed
    exchange.writer.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not healed.is_set():
        exchange.writer.write(b"x")
        await exchange.writer.drain()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(healed.wait(), DRIP)
    raise Reset


async def drop_answer(exchange):
    """The server performs the request; the client gets no answer."""
    await exchange.forward()
    raise Reset


def delay(seconds):
    """The request is handed on later."""

    async def fault(exchange):
        await asyncio.sleep(seconds)
        return await exchange.forward()

    return fault


def status(code, name="InternalError"):
    """An S3 error instead of an answer; the request is not handed on."""

    async def fault(exchange):
        body = (
            b""
            if exchange.method == "HEAD"
            else (
                f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{name}</Code>'
                f"<Message>by script</Message></Error>"
            ).encode()
        )
        return (
            f"HTTP/1.1 {code} {name}\r\nContent-Type: application/xml\r\nContent-Length: "
            f"{len(body)}\r\nConnection: close\r\n\r\n"
        ).encode() + body

    return fault


def answer(raw):
    """These bytes instead of an answer; the request is not handed on."""

    async def fault(exchange):
        return raw

    return fault


def truncate(size):
    """The answer's body ends after ``size`` bytes, whatever was announced."""

    async def fault(exchange):
        head, _, body = (await exchange.forward()).partition(b"\r\n\r\n")
        return head + b"\r\n\r\n" + body[:size]

    return fault


async def corrupt(exchange):
    """One bit of the answer's last byte is flipped."""
    raw = bytearray(await exchange.forward())
    raw[-1] ^= 1
    return bytes(raw)


async def corrupt_request(exchange):
    """One bit of the request's body is flipped on its way."""
    exchange.body = exchange.body[:-1] + bytes([exchange.body[-1] ^ 1])
    return await exchange.forward()


# --------------------------------------------------------------------- the proxy


@dataclass
class _Rule:
    fault: object
    method: str
    path: str
    skip: int
    left: int | None

    def strikes(self, method, path):
        if self.method not in ("", method) or self.path not in path or self.left == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.left is not None:
            self.left -= 1
        return True


class FaultProxy:
    """``url`` replaces ``upstream``. ``requests`` lists (method, path, server's status); the status
    is None where the server was never asked."""

    def __init__(self, upstream, *, tls=None, streaming=False):
        """``streaming``: the body is left to the fault, which reads it from ``reader``."""
        parts = urlsplit(upstream)
        self.upstream = (parts.hostname, parts.port)
        self.requests = []
        self._rules = []
        self._tls = tls
        self._streaming = streaming
        self._port = 0
        self._tasks = set()
        self._server = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.up()

    @property
    def url(self):
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self._port}"

    def fault(self, fault, *, method="", path="", nth=1, times=1):
        """From the ``nth`` matching request on (1 is the next), ``times`` of them (None: for
        ever) meet ``fault``. ``path`` is part of the request's target."""
        self._rules.append(_Rule(fault, method, path, nth - 1, times))

    def heal(self):
        """Forget the script; what hangs is reset."""
        self._rules.clear()
        self._run(self._heal())

    def count(self, method="", path=""):
        return sum(1 for m, p, _ in list(self.requests) if method in ("", m) and path in p)

    def up(self):
        """Listen (again, at the same port)."""
        self._run(self._listen())

    def down(self):
        """Refuse connections, and reset those that are open."""
        self._run(self._unlisten())

    def stop(self):
        self.down()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _listen(self):
        self.healed = asyncio.Event()
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self._port, ssl=self._tls
        )
        self._port = self._server.sockets[0].getsockname()[1]

    async def _unlisten(self):
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _heal(self):
        self.healed.set()
        self.healed = asyncio.Event()

    async def _serve(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            writer.write(await self._exchange(reader, writer))
            await writer.drain()
            writer.close()
        except (Reset, ConnectionError, asyncio.IncompleteReadError):
            _cut(writer)
        except asyncio.CancelledError:
            _cut(writer)  # the proxy goes down
        finally:
            self._tasks.discard(task)

    async def _exchange(self, reader, writer):
        raw = await reader.readuntil(b"\r\n\r\n")
        method, path = raw.decode("latin-1").split(" ", 2)[:2]
        fault = next((r.fault for r in self._rules if r.strikes(method, path)), None)
        exchange = Exchange(method, path, raw, _without_hops(raw), b"", self, reader, writer)
        try:
            if fault is reset_early:
                raise Reset
            exchange.body = await _body(raw, reader, writer, skip=self._streaming)
            return await (fault(exchange) if fault else exchange.forward())
        finally:
            self.requests.append((method, path, exchange.status))


def _field(raw, name):
    for line in raw.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip()
    return b""


async def _body(raw, reader, writer, *, skip):
    if _field(raw, b"expect").lower() == b"100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    size = 0 if skip else int(_field(raw, b"content-length") or 0)
    return await reader.readexactly(size)


def _without_hops(raw):
    """The head without what concerns this connection only; none of it is signed."""
    lines = [
        line
        for line in raw.split(b"\r\n")[:-2]
        if line.partition(b":")[0].lower() not in (b"expect", b"connection")
    ]
    return b"\r\n".join([*lines, b"Connection: close", b"", b""])


def _cut(writer):
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
    writer.transport.abort()
