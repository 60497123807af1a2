"""A queue in a SQLite database, and a task that writes to the same database."""

import contextlib
import os
import sqlite3

from huey import SqliteHuey

DATABASE = "shop.db"
huey = SqliteHuey(filename=DATABASE, timeout=20)


@huey.task()
def take(key, body):
    """Takes one order; returns the process that took it."""
    with contextlib.closing(sqlite3.connect(DATABASE, timeout=20)) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS orders (key TEXT PRIMARY KEY, body TEXT)")
        connection.execute("INSERT INTO orders VALUES (?, ?)", (key, body))
    return os.getpid()
