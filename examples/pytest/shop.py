"""The application under test."""

import sqlite3


def connect(path):
    """A connection that commits each statement."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    return connection


def create_tables(connection):
    connection.execute("CREATE TABLE IF NOT EXISTS orders (item TEXT)")


def add(connection, item):
    connection.execute("INSERT INTO orders VALUES (?)", (item,))
