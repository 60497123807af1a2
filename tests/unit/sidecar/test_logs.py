"""The log lines of a sidecar: as text, as JSON, and of which database."""

import json
import logging
import threading

import pytest

from replicator.sidecar.logs import set_up_logging


@pytest.fixture(autouse=True)
def log_settings():
    """Restores the settings of the log that a test changes."""
    logger = logging.getLogger("replicator")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


def log_in_thread(name, message, *args):
    logger = logging.getLogger("replicator.upload")
    thread = threading.Thread(target=logger.warning, args=(message, *args), name=name)
    thread.start()
    thread.join()


def test_json_lines(capsys):
    """One object per line: time, level, logger, message, and the prefix of a database."""
    set_up_logging(as_json=True, prefixed=False)
    logging.getLogger("replicator.upload").warning("%s is away", "the store")
    line = json.loads(capsys.readouterr().err)
    assert line.pop("time_ms") > 0
    assert line == {
        "level": "WARNING",
        "logger": "replicator.upload",
        "message": "the store is away",
    }
    log_in_thread("replicator-capture:shop/app.db", "hello")
    assert json.loads(capsys.readouterr().err)["prefix"] == "shop/app.db"


def test_text_lines(capsys):
    """Time, level and message; of one database there is no prefix."""
    set_up_logging(as_json=False, prefixed=False)
    log_in_thread("replicator-capture:shop/app.db", "hello")
    assert capsys.readouterr().err.endswith("WARNING hello\n")


def test_prefixed_lines(capsys):
    """A line that a database's own thread wrote begins with its prefix; other lines do not."""
    set_up_logging(as_json=False, prefixed=True)
    log_in_thread("replicator-upload:shop/app.db", "attempt %d failed", 1)
    logging.getLogger("replicator").info("all of them")
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("WARNING shop/app.db: attempt 1 failed")
    assert second.endswith("INFO    all of them")
