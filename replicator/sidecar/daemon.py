"""The sidecar: replicators as a process of their own, alone or around the application.

Owns signals, the child process, and the exit code. SIGTERM and SIGINT mean "make everything
durable, then end"; the exit code is 0 only if that came true, of one database or of all.
"""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, Self

from replicator.config.file import ConfigFile
from replicator.config.settings import SqliteReplicatorConfig
from replicator.errors import ConfigError, NotDurable, ReplicatorError
from replicator.replicator import SqliteReplicator
from replicator.sidecar.control import ControlSocket
from replicator.sidecar.fleet import Fleet
from replicator.system import process
from replicator.system.child import wait_for

FINAL_FLUSH = 30.0  # seconds to make the rest durable before ending; a second signal ends at once
POLL = 0.2
LOOK = 1.0  # seconds between two looks at whether replication failed: at 0.2, half of the idle CPU
JOIN_POLL = 0.02
# Seconds between two looks at whether there is memory to give back. What is given back under steady
# writes is cleared and mapped anew for the next segment: at 1 s, a tenth of their CPU.
TIDY = 5.0
STORED = ("uploaded_bytes", "snapshots", "merges")  # there is, after these have grown

log = logging.getLogger(__name__)


def run_sidecar(
    config: SqliteReplicatorConfig, command: list[str] | None = None, *, as_json: bool = False
) -> int:
    """Replicate until a signal, or until ``command`` ends; the process's exit code.

    Around a command, a missing database is restored first if the bucket has it, and the code is
    the command's own unless that is 0 and something is not durable.
    """
    set_up_logging(as_json=as_json)
    replicator = SqliteReplicator(config)
    restored = False
    if command is not None or config.auto_restore:
        restored = _restore_missing(replicator)  # before we take signals: one ends it at once
    signals = _Signals()
    with signals, _started(replicator):
        if restored:
            _wait_joined(replicator, signals)
        log.info("following %s, backing up to %s", config.database, config.target.url)
        with ControlSocket(config.cache, replicator), _tidied(replicator):
            code = _around(command, signals) if command else _alone(replicator, signals)
        return _end(replicator, signals, code)


def run_fleet(file: ConfigFile, command: list[str] | None = None, *, as_json: bool = False) -> int:
    """The same for every database of a file. One that cannot be replicated does not end the
    others; the exit code is that of the first, in the order of the file, of which not everything
    is in its bucket at the end."""
    set_up_logging(as_json=as_json, many=True)
    limits = process.most_descriptors()
    with Fleet(file) as fleet:
        restored = fleet.restore_missing(everything=command is not None)
        signals = _Signals()
        with signals:
            fleet.start()
            if command:
                fleet.wait_started(signals.wait)
                fleet.wait_joined(restored, signals.wait)
                code = _around(command, signals, limits)
            else:
                code = 0
                while not signals.wait(LOOK) and not fleet.hopeless:
                    pass
            return _end_all(fleet, signals, code)


def _end_all(fleet: Fleet, signals: _Signals, code: int) -> int:
    """The last flush of all, at once. Every database that is not durable is named."""
    signals.rearm()
    log.info(
        "making everything durable, for %.0f s at most; a second signal ends at once", FINAL_FLUSH
    )
    left = fleet.flush(FINAL_FLUSH, lambda: signals.received)
    for member in left:
        assert member.error is not None  # that is what they are
        log.error(
            "%s: %s; %s", member.config.database, member.error, _what_is_missing(member.replicator)
        )
        if member.error.hint:
            log.error("hint: %s", member.error.hint)
    log.info(
        "%d of %d databases are in their buckets to the end",
        len(fleet.members) - len(left),
        len(fleet.members),
    )
    return code or next((member.error.exit_code for member in left if member.error), 0)


def _restore_missing(replicator: SqliteReplicator) -> bool:
    """Whether the database was restored just now."""
    config = replicator.config
    if config.database.exists():
        return False
    log.info("%s does not exist; looking for its backup in %s", config.database, config.target.url)
    report = replicator.restore(if_missing=True)
    if report is None:
        log.info("there is none; the database may be made anew")
    elif report.objects:
        log.info(
            "restored %s to txid %d in %.1f s; proved by %s",
            report.output,
            report.txid,
            report.seconds,
            report.verified,
        )
    return report is not None and report.objects > 0


def _wait_joined(replicator: SqliteReplicator, signals: _Signals) -> None:
    """Let nobody write to a restored database before it proved to be where the log ends: then
    it continues that log, and needs no new snapshot."""
    while replicator.status().state == "starting" and not signals.wait(JOIN_POLL):
        pass


@contextlib.contextmanager
def _started(replicator: SqliteReplicator) -> Iterator[None]:
    replicator.start()
    try:
        yield
    finally:
        replicator.stop()


@contextlib.contextmanager
def _tidied(replicator: SqliteReplicator) -> Iterator[None]:
    """Give memory back after uploads: glibc would keep the buffers of a burst for ever."""
    ended = threading.Event()

    def tidy() -> None:
        before = 0.0
        while not ended.wait(TIDY):
            stored = sum(map(replicator.metrics.get, STORED))
            if stored != before:
                process.give_back()
                before = stored

    thread = threading.Thread(target=tidy, name="replicator-tidy", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _alone(replicator: SqliteReplicator, signals: _Signals) -> int:
    while not signals.wait(LOOK) and replicator.failed is None:
        pass
    return 0


def _around(command: list[str], signals: _Signals, limits: tuple[int, int] | None = None) -> int:
    try:
        child = subprocess.Popen(command)
    except OSError as error:
        raise ConfigError(f"cannot run {command[0]}: {(error.strerror or '').lower()}") from error
    if limits is not None:
        process.limit_descriptors(child.pid, limits)
    log.info("running %s as process %d", command[0], child.pid)
    with signals.forwarded_to(child):
        code = wait_for(child)
    return 128 - code if code < 0 else code


def _end(replicator: SqliteReplicator, signals: _Signals, code: int) -> int:
    """The last flush. A failure is loud, and never hidden behind a code of 0."""
    signals.rearm()
    try:
        if replicator.failed is not None:
            raise replicator.failed
        position = _flush_until(replicator, signals)
        log.info("everything up to txid %d is in %s", position, replicator.config.target.url)
    except ReplicatorError as error:
        log.error("%s; %s", error, _what_is_missing(replicator))
        if error.hint:
            log.error("hint: %s", error.hint)
        return code or error.exit_code
    return code


def _what_is_missing(replicator: SqliteReplicator) -> str:
    """How much is not durable: what waits in the cache, and what was not even captured."""
    status = replicator.status()
    if not status.txid:
        return "nothing of the database is in the bucket"
    behind = status.txid - status.durable_txid
    return (
        f"{behind} transactions, {status.pending_bytes} bytes in {status.pending_segments} "
        f"segments wait in {replicator.config.cache}; {status.lag_bytes} bytes of committed "
        "log are not durable"
    )


def _flush_until(replicator: SqliteReplicator, signals: _Signals) -> int:
    until, told = time.monotonic() + FINAL_FLUSH, False
    while True:
        try:
            return replicator.flush(timeout=POLL).txid
        except NotDurable:
            if signals.received or time.monotonic() >= until:
                raise
        if not told:
            log.info(
                "not everything is in the bucket yet; trying for %.0f s at most, and a "
                "second signal ends at once",
                FINAL_FLUSH,
            )
            told = True


class _Signals:
    """SIGTERM and SIGINT as an event; while a command runs they go to it instead."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._event.set()
        if self._child is not None:
            self._child.send_signal(number)

    @contextlib.contextmanager
    def forwarded_to(self, child: subprocess.Popen[bytes]) -> Iterator[None]:
        self._child = child
        if self._event.is_set():
            child.terminate()
        try:
            yield
        finally:
            self._child = None

    @property
    def received(self) -> bool:
        return self._event.is_set()

    def rearm(self) -> None:
        """From here on a signal means: end at once."""
        self._event.clear()

    def wait(self, seconds: float) -> bool:
        return self._event.wait(seconds)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        prefix = _prefix_of(record)
        whose = {"prefix": prefix} if prefix else {}
        return json.dumps(
            {
                "time_ms": int(record.created * 1000),
                "level": record.levelname,
                "logger": record.name,
                "message": record.getMessage(),
                **whose,
            }
        )


class _LinesOfMany(logging.Formatter):
    """Each line begins with the place of the database that it is about, if it is about one."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        prefix = _prefix_of(record)
        record.message = f"{prefix}: {record.message}" if prefix else record.message
        return super().formatMessage(record)


def _prefix_of(record: logging.LogRecord) -> str:
    """The prefix of the database whose thread wrote the record."""
    return (record.threadName or "").partition(":")[2]


def set_up_logging(*, as_json: bool, many: bool = False) -> None:
    """Log lines on standard error, for people or as JSON; of ``many`` databases."""
    handler = logging.StreamHandler(sys.stderr)
    lines = _LinesOfMany if many else logging.Formatter
    handler.setFormatter(
        _JsonLines() if as_json else lines("%(asctime)s %(levelname)-7s %(message)s")
    )
    logger = logging.getLogger("replicator")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
