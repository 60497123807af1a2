"""The log lines of a sidecar on standard error, as text or as JSON.

Owns the format, and the thread that writes: a terminal or a log collector that stops reading delays
neither replication nor its end. A line that a database's own thread wrote names that database by
its prefix.
"""

from __future__ import annotations

import errno
import json
import logging
import sys
import threading
from typing import Any, TextIO

from replicator.archive.timespec import to_text
from replicator.format.printable import printable

LEAST_ROOM = 1000  # lines that wait for a slow reader; later ones are dropped and counted
CLOSED = frozenset({errno.EPIPE, errno.EBADF})
PATIENCE = 1.0  # seconds for which a flush waits for the reader


class JsonLines(logging.Formatter):
    """One JSON object per line: ``time_ms``, ``level``, ``logger``, ``message``, ``prefix``."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = _prefix_of(record)
        document = {
            "time_ms": int(record.created * 1000),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        return json.dumps(document | ({"prefix": prefix} if prefix else {}))


class PlainLines(logging.Formatter):
    """Text; one line for each record, and indented lines for a traceback, so that no message can
    pass for a line of its own. Times are UTC, in the form that every command accepts."""

    def formatTime(  # noqa: N802 - logging's name
        self, record: logging.LogRecord, datefmt: str | None = None
    ) -> str:
        return to_text(int(record.created * 1000))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = printable(self.message_of(record))
        return super().formatMessage(record)

    def message_of(self, record: logging.LogRecord) -> str:
        return record.message

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        lines = super().formatException(ei).split("\n")
        return "\n".join(f"    {printable(line)}" for line in lines)


class PrefixedLines(PlainLines):
    """Text; each line about one database begins with its prefix."""

    def message_of(self, record: logging.LogRecord) -> str:
        prefix = _prefix_of(record)
        return f"{prefix}: {record.message}" if prefix else record.message


def _prefix_of(record: logging.LogRecord) -> str:
    """The prefix of the database whose thread wrote the record; ``""`` for other threads."""
    return (record.threadName or "").partition(":")[2]


class BackgroundHandler(logging.Handler):
    """Writes lines in a thread of its own, so that no caller ever waits for the reader.

    ``room`` lines wait at most; the number of lines that were dropped follows as a line.
    """

    def __init__(self, stream: TextIO | None, room: int = LEAST_ROOM) -> None:
        super().__init__()
        self._stream = stream
        self._room = room
        self._lines: list[str] = []
        self._dropped = 0
        self._writing = False
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="replicator-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - as every handler of the logging library does
            self.handleError(record)
            return
        with self._changed:
            if len(self._lines) < self._room:
                self._lines.append(line)
            else:
                self._dropped += 1
            self._changed.notify_all()

    def flush(self) -> None:
        """Waits until the lines so far are written, but not for a reader that has stopped."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._lines or self._writing), PATIENCE)

    def close(self) -> None:
        self.flush()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(PATIENCE)
        super().close()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._closed)
                if not self._lines:
                    return
                lines, self._lines, self._writing = self._lines, [], True
                dropped, self._dropped = self._dropped, 0
            if dropped:
                lines.append(f"{dropped} lines were dropped: standard error was not read in time")
            self._write("".join(f"{line}\n" for line in lines))
            with self._changed:
                self._writing = False
                self._changed.notify_all()

    def _write(self, text: str) -> None:
        try:
            if self._stream is not None:
                self._stream.write(text)
                self._stream.flush()
        except ValueError:
            self._stream = None  # it was closed
        except OSError as error:
            if error.errno in CLOSED:
                self._stream = None
            with self._changed:  # a full disk may have room later
                self._dropped += text.count("\n")


def set_up_logging(*, as_json: bool, prefixed: bool, level: int = logging.INFO) -> logging.Handler:
    """Log to standard error, as JSON or as text; ``prefixed`` text names the database."""
    handler = BackgroundHandler(sys.stderr)
    lines = PrefixedLines if prefixed else PlainLines
    handler.setFormatter(
        JsonLines() if as_json else lines("%(asctime)s %(levelname)-7s %(message)s")
    )
    logger = logging.getLogger("replicator")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False
    return handler
