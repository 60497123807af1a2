"""The log lines of a sidecar on standard error, as text or as JSON.

Owns the format. A line that a database's own thread wrote names that database by its prefix.
"""

from __future__ import annotations

import json
import logging
import sys


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


class PrefixedLines(logging.Formatter):
    """Text; each line about one database begins with its prefix."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        prefix = _prefix_of(record)
        record.message = f"{prefix}: {record.message}" if prefix else record.message
        return super().formatMessage(record)


def _prefix_of(record: logging.LogRecord) -> str:
    """The prefix of the database whose thread wrote the record; ``""`` for other threads."""
    return (record.threadName or "").partition(":")[2]


def set_up_logging(*, as_json: bool, prefixed: bool) -> None:
    """Log to standard error, as JSON or as text; ``prefixed`` text names the database."""
    handler = logging.StreamHandler(sys.stderr)
    lines = PrefixedLines if prefixed else logging.Formatter
    handler.setFormatter(
        JsonLines() if as_json else lines("%(asctime)s %(levelname)-7s %(message)s")
    )
    logger = logging.getLogger("replicator")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
