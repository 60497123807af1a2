"""A shop that takes orders: the routes, and a connection for each request."""

import contextlib
import os
import sqlite3

from fastapi import APIRouter
from pydantic import BaseModel

DATABASE = "shop.db"
router = APIRouter()


class Order(BaseModel):
    """One order."""

    key: str
    body: str


def connect():
    """A connection that closes at the end of its block."""
    connection = sqlite3.connect(DATABASE, timeout=20, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    return contextlib.closing(connection)


def create_tables():
    """Does nothing if they exist."""
    with connect() as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS orders (key TEXT PRIMARY KEY, body TEXT)")


@router.post("/orders")
def add(order: Order):
    """Takes one order."""
    with connect() as connection:
        connection.execute("INSERT INTO orders VALUES (?, ?)", (order.key, order.body))
    return {"worker": os.getpid()}


@router.get("/orders")
def every():
    """Returns all orders."""
    with connect() as connection:
        return dict(connection.execute("SELECT key, body FROM orders").fetchall())
