"""The web process: puts a task into the queue, and answers once it was done."""

import contextlib
import json
import sqlite3

from huey.exceptions import HueyException
from tasks import DATABASE, take


def every():
    """All orders."""
    with contextlib.closing(sqlite3.connect(DATABASE, timeout=20)) as connection:
        try:
            return dict(connection.execute("SELECT key, body FROM orders").fetchall())
        except sqlite3.OperationalError:  # before the first task
            return {}


def application(environ, start_response):
    """POST takes one order, GET returns all of them."""
    status, answer = "200 OK", {}
    if environ["REQUEST_METHOD"] == "GET":
        answer = every()
    else:
        order = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        try:
            result = take(order["key"], order["body"])
            answer = {"worker": result.get(blocking=True, timeout=10)}
        except HueyException:  # the worker is gone, or late
            status = "503 Service Unavailable"
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]
