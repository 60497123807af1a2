"""The log lines of a sidecar: as text, as JSON, and of which database."""

import errno
import io
import json
import logging
import threading

import pytest

from replicator.sidecar.logs import BackgroundHandler, set_up_logging
from tests.helpers.replication import LONG


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
    handler = set_up_logging(as_json=True, prefixed=False)
    logging.getLogger("replicator.upload").warning("%s is away", "the store")
    handler.flush()
    line = json.loads(capsys.readouterr().err)
    assert line.pop("time_ms") > 0
    assert line == {
        "level": "WARNING",
        "logger": "replicator.upload",
        "message": "the store is away",
    }
    log_in_thread("replicator-capture:shop/app.db", "hello")
    handler.flush()
    assert json.loads(capsys.readouterr().err)["prefix"] == "shop/app.db"


def test_text_lines(capsys):
    """Time, level and message; of one database there is no prefix."""
    handler = set_up_logging(as_json=False, prefixed=False)
    log_in_thread("replicator-capture:shop/app.db", "hello")
    handler.flush()
    assert capsys.readouterr().err.endswith("WARNING hello\n")


def test_prefixed_lines(capsys):
    """A line that a database's own thread wrote begins with its prefix; other lines do not."""
    handler = set_up_logging(as_json=False, prefixed=True)
    log_in_thread("replicator-upload:shop/app.db", "attempt %d failed", 1)
    logging.getLogger("replicator").info("all of them")
    handler.flush()
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("WARNING shop/app.db: attempt 1 failed")
    assert second.endswith("INFO    all of them")


class StoppedReader(io.StringIO):
    """A stream whose writes wait until the test lets them."""

    def __init__(self):
        super().__init__()
        self.reading = threading.Event()

    def write(self, text):
        assert self.reading.wait(LONG)
        return super().write(text)


@pytest.fixture
def logger():
    """A logger without handlers."""
    logger = logging.getLogger("test of the log of a sidecar")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield logger
    for handler in logger.handlers[:]:
        handler.close()
        logger.removeHandler(handler)


def test_a_reader_that_stops_delays_no_caller(logger):
    """Lines beyond the room are dropped, and their number is logged."""
    stream = StoppedReader()
    handler = BackgroundHandler(stream, room=10)
    logger.addHandler(handler)
    for number in range(100):
        logger.info("line %d", number)
    stream.reading.set()
    handler.flush()
    lines = stream.getvalue().splitlines()
    kept = [line for line in lines if line.startswith("line ")]
    dropped = [int(line.partition(" lines were dropped")[0]) for line in lines if line not in kept]
    assert len(kept) >= 10
    assert sum(dropped) == 100 - len(kept) > 0


def test_a_stream_that_is_closed_is_no_error(logger):
    """Standard error may be closed before or while the sidecar runs."""
    for stream in (None, io.StringIO()):
        handler = BackgroundHandler(stream)
        logger.addHandler(handler)
        if stream is not None:
            stream.close()
        logger.info("a line")
        handler.close()


def test_lines_are_written_again_once_a_full_disk_has_room(logger):
    """The log counts the lines that were lost."""

    class Disk(io.StringIO):
        full = True

        def write(self, text):
            if self.full:
                raise OSError(errno.ENOSPC, "no space left")
            return super().write(text)

    disk = Disk()
    handler = BackgroundHandler(disk)
    logger.addHandler(handler)
    logger.info("lost")
    handler.flush()
    disk.full = False
    logger.info("kept")
    handler.flush()
    assert disk.getvalue().splitlines()[0] == "kept"
    assert disk.getvalue().splitlines()[1].startswith("1 lines were dropped")


def test_a_message_that_cannot_be_formatted_is_reported(capsys):
    """As by every handler of the library; the next line follows."""
    stream = io.StringIO()
    handler = BackgroundHandler(stream)
    for message in ("%d", "a line: %s"):
        handler.emit(logging.makeLogRecord({"msg": message, "args": ("no number",)}))
    handler.close()
    assert stream.getvalue() == "a line: no number\n"
    assert "--- Logging error ---" in capsys.readouterr().err


def test_no_message_passes_for_a_line_of_its_own(capsys):
    """A key with a line break and an escape sequence stays within its line; the lines of a
    traceback are indented, those of its message too."""
    handler = set_up_logging(as_json=False, prefixed=True)
    forged = "wal/x\n2026-01-01 00:00:00,000 INFO    all is well\x1b[2J"
    log_in_thread("replicator-upload:app\n.db", "%s is damaged", forged)
    try:
        raise ValueError(forged)
    except ValueError:
        logging.getLogger("replicator").exception("failed")
    handler.flush()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith(
        r"WARNING app\n.db: wal/x\n2026-01-01 00:00:00,000 INFO    all is well\x1b[2J is damaged"
    )
    assert lines[1].endswith("ERROR   failed")
    assert all(line.startswith("    ") for line in lines[2:])
    assert all(line.isprintable() for line in lines)
