"""A proxy in front of the S3 server that writes one line for each request.

    python -m benchmarks.proxy 127.0.0.1:8333 requests.jsonl

It prints its port. A thread for each connection, bodies relayed in pieces without parsing, and
kept-alive connections on both sides, so that it adds two copies in memory and no round trip.
Bytes are those of bodies; heads are left out for both directions and all systems alike.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

PIECE = 256 << 10


class Closed(Exception):
    """The other side ended the connection where it may."""


class Wire:
    """One side of a conversation: heads are read, bodies go through."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connection
        self._view = memoryview(bytearray(PIECE))
        self._rest = b""

    def until(self, mark: bytes) -> bytes:
        """Everything up to and with the mark. ``Closed`` when nothing comes."""
        while (end := self._rest.find(mark)) < 0:
            more = self.socket.recv(65536)
            if not more:
                raise Closed
            self._rest += more
        taken, self._rest = self._rest[: end + len(mark)], self._rest[end + len(mark) :]
        return taken

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def relay(self, size: int, other: Wire) -> int:
        """Hand ``size`` bytes on; how many they were."""
        taken, self._rest = self._rest[:size], self._rest[size:]
        if taken:
            other.send(taken)
        left = size - len(taken)
        while left:
            got = self.socket.recv_into(self._view[: min(left, PIECE)])
            if not got:
                raise Closed
            other.socket.sendall(self._view[:got])
            left -= got
        return size

    def relay_chunks(self, other: Wire) -> int:
        """Hand a chunked body on; the bytes of its chunks."""
        total = 0
        while True:
            line = self.until(b"\r\n")
            other.send(line)
            size = int(line.split(b";")[0], 16)
            if not size:
                break
            total += self.relay(size, other)
            other.send(self.until(b"\r\n"))
        while (line := self.until(b"\r\n")) != b"\r\n":
            other.send(line)
        other.send(line)
        return total


@dataclass
class Head:
    """First line and fields of a request or an answer."""

    raw: bytes
    fields: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for line in self.raw.decode("latin-1").split("\r\n")[1:]:
            name, _, value = line.partition(":")
            self.fields[name.strip().lower()] = value.strip()

    @property
    def words(self) -> list[str]:
        return self.raw.decode("latin-1").split("\r\n", 1)[0].split(" ")

    def relay_body(self, source: Wire, target: Wire) -> int:
        if self.fields.get("transfer-encoding", "").lower() == "chunked":
            return source.relay_chunks(target)
        return source.relay(int(self.fields.get("content-length") or 0), target)


def kind_of(method: str, target: str, fields: dict[str, str]) -> str:
    """What a request is called in the tables, after the price lists of S3."""
    parts = urlsplit(target)
    query = parse_qs(parts.query, keep_blank_values=True)
    if method == "GET" and (
        "list-type" in query
        or "uploads" in query
        or "uploadId" in query
        or "/" not in parts.path.strip("/")
    ):
        return "LIST"
    if method == "PUT" and "x-amz-copy-source" in fields:
        return "COPY"
    if method == "POST" and "delete" in query:
        return "DELETE"
    return method


class Conversation(threading.Thread):
    """One client's connection, and its own to the server."""

    def __init__(self, client: socket.socket, upstream: tuple[str, int], log: int) -> None:
        super().__init__(daemon=True)
        self._client = Wire(client)
        self._upstream = upstream
        self._log = log

    def run(self) -> None:
        with contextlib.suppress(Closed, OSError), self._client.socket:
            server = Wire(socket.create_connection(self._upstream))
            with server.socket:
                while self._exchange(server):
                    pass

    def _exchange(self, server: Wire) -> bool:
        """One request and its answer; whether another may follow."""
        request = Head(self._client.until(b"\r\n\r\n"))
        method, target = request.words[:2]
        begun = time.monotonic()
        server.send(request.raw)
        up = 0
        answer = None
        if request.fields.get("expect", "").lower() == "100-continue":
            answer = self._answer(server)
        if answer is None:
            up = request.relay_body(self._client, server)
            answer = self._answer(server)
        while answer is None:
            answer = self._answer(server)
        answered = time.monotonic()  # the server has spoken: what was asked took effect
        self._client.send(answer.raw)
        silent = method == "HEAD" or answer.words[1] in ("204", "304")
        down = 0 if silent else answer.relay_body(server, self._client)
        line = {
            "begun": begun,
            "answered": answered,
            "ended": time.monotonic(),
            "up": up,
            "kind": kind_of(method, target, request.fields),
            "down": down,
            "target": target,
            "status": int(answer.words[1]),
        }
        os.write(self._log, json.dumps(line).encode() + b"\n")
        return answer.fields.get("connection", "").lower() != "close"

    def _answer(self, server: Wire) -> Head | None:
        """The server's head; None for "100 Continue", which is handed on."""
        answer = Head(server.until(b"\r\n\r\n"))
        if answer.words[1] == "100":
            self._client.send(answer.raw)
            return None
        return answer


def main(upstream: str, path: str) -> None:
    host, _, port = upstream.rpartition(":")
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    print(listener.getsockname()[1], flush=True)
    while True:
        client, _ = listener.accept()
        Conversation(client, (host, int(port)), log).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
