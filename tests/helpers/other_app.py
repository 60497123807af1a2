"""A process of the application with one connection, which a test sends statements."""

import contextlib
import json
import select
import subprocess

from tests.helpers.processes import STANDARD_PYTHON
from tests.helpers.replication import LONG

PROGRAM = """
import json, sqlite3, sys
path, timeout = sys.argv[1:]
db = sqlite3.connect(path, isolation_level=None, timeout=float(timeout))
print("ready", flush=True)
for line in sys.stdin:
    try:
        rows = db.execute(json.loads(line)).fetchall()
    except sqlite3.Error as error:
        rows = str(error)
    print(json.dumps(rows), flush=True)
db.close()
"""


class OtherApp:
    """``timeout`` is the connection's busy timeout in seconds; ``options`` are those of Popen."""

    def __init__(self, path, *, timeout=LONG, **options):
        self.process = subprocess.Popen(
            [*STANDARD_PYTHON, "-c", PROGRAM, str(path), str(timeout)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )
        assert self.process.stdout.readline() == "ready\n"

    def begin(self, statement):
        """Sends a statement, and does not wait for its end."""
        self.process.stdin.write(json.dumps(statement) + "\n")
        self.process.stdin.flush()

    @property
    def answered(self):
        """True if the statement has ended."""
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    def result(self):
        """The rows of the last statement, or the text of its error."""
        return json.loads(self.process.stdout.readline())

    def run(self, statement):
        self.begin(statement)
        return self.result()

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(LONG)
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
