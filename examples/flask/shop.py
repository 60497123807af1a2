"""Takes orders; each 200 means that the order is in the bucket."""

import contextlib
import os
import sqlite3

from flask import Flask, request

from replicator.contrib.flask import Replicator, health_blueprint

replication = Replicator(durable_timeout=10)


def create_app():
    """The application; it replicates from its first request on, or from `start()`."""
    app = Flask(__name__)
    app.config["REPLICATOR"] = {"db_path": "shop.db", "auto_restore": True}
    replication.init_app(app)
    app.register_blueprint(health_blueprint(replication))
    app.add_url_rule("/orders", view_func=add, methods=["POST"])
    app.add_url_rule("/orders", view_func=every, methods=["GET"])
    return app


def connect():
    """A connection that closes at the end of its block."""
    connection = sqlite3.connect("shop.db", timeout=20, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    return contextlib.closing(connection)


def create_tables():
    """Does nothing if they exist."""
    with connect() as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS orders (key TEXT PRIMARY KEY, body TEXT)")


@replication.durable()
def add():
    """Takes one order."""
    order = request.get_json()
    with connect() as connection:
        connection.execute("INSERT INTO orders VALUES (?, ?)", (order["key"], order["body"]))
    return {"worker": os.getpid()}


def every():
    """Returns all orders."""
    with connect() as connection:
        return dict(connection.execute("SELECT key, body FROM orders").fetchall())
