"""An application that knows nothing of replication: it writes a reading every 100 ms."""

import random
import signal
import sqlite3
import sys
import threading
import time


def main(path: str) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    database = sqlite3.connect(path, timeout=30)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute(
        "CREATE TABLE IF NOT EXISTS reading (id INTEGER PRIMARY KEY, at REAL, celsius REAL)"
    )
    while not stop.wait(0.1):
        with database:
            database.execute(
                "INSERT INTO reading (at, celsius) VALUES (?, ?)",
                (time.time(), random.gauss(21, 2)),
            )
    (rows,) = database.execute("SELECT count(*) FROM reading").fetchone()
    print(f"{rows} readings", flush=True)
    database.close()


if __name__ == "__main__":
    main(sys.argv[1])
