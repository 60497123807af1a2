"""A shop that opens and closes a connection of apsw for each request: gunicorn shop:application."""

import json
import os

import apsw

DATABASE = "shop.db"
TABLE = "CREATE TABLE IF NOT EXISTS orders (key TEXT PRIMARY KEY, body TEXT)"


def execute(*statement):
    """The rows of one statement, on a connection of its own."""
    connection = apsw.Connection(DATABASE)
    try:
        connection.set_busy_timeout(20_000)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(TABLE)
        return connection.execute(*statement).fetchall()
    finally:
        connection.close()


def application(environ, start_response):
    """POST takes one order, GET returns all of them."""
    if environ["REQUEST_METHOD"] == "GET":
        answer = dict(execute("SELECT key, body FROM orders"))
    else:
        order = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        execute("INSERT INTO orders VALUES (?, ?)", (order["key"], order["body"]))
        answer = {"worker": os.getpid()}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]
