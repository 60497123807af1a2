"""Takes orders; each 200 means that the order is in the bucket.

REPLICATOR_BUCKET=backups uvicorn main:app --workers 2
"""

import contextlib
import os
import sqlite3

from fastapi import FastAPI
from pydantic import BaseModel

from replicator import SqliteReplicatorConfig
from replicator.contrib.starlette import durable_request, health_router, replicated

DATABASE = "shop.db"


def settings():
    """Read at the start of each worker, not at the import."""
    return SqliteReplicatorConfig.from_env(db_path=DATABASE, auto_restore=True)


@contextlib.asynccontextmanager
async def lifespan(app):
    """Runs within the replication: a lost database is restored before this creates a table."""
    with connect() as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS orders (key TEXT PRIMARY KEY, body TEXT)")
    yield


app = FastAPI(lifespan=replicated(settings, lifespan))
app.include_router(health_router())


class Order(BaseModel):
    """One order."""

    key: str
    body: str


def connect():
    """A connection that closes at the end of its block."""
    connection = sqlite3.connect(DATABASE, timeout=20, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    return contextlib.closing(connection)


@app.post("/orders", dependencies=[durable_request(timeout=10)])
def add(order: Order):
    """Takes one order."""
    with connect() as connection:
        connection.execute("INSERT INTO orders VALUES (?, ?)", (order.key, order.body))
    return {"worker": os.getpid()}


@app.get("/orders")
def every():
    """Returns all orders."""
    with connect() as connection:
        return dict(connection.execute("SELECT key, body FROM orders").fetchall())
