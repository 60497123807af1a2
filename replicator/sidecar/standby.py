"""Standby: this process waits for the end of another one that replicates the same database.

Owns: the wait until the other process has decided its start, which an application has to wait for
as well; the thread that sleeps until the lock is free; and the last flush, which the other process
makes as long as it has the lock. Refuses: to start replication; the member of the fleet does.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from replicator.config.settings import SqliteReplicatorConfig
from replicator.errors import AlreadyRunning, NotDurable, ReplicatorError
from replicator.sidecar.control_client import ask

DECISION_POLL = 0.1  # seconds between two looks whether another process has decided its start
REPEAT = 60.0  # seconds until a log line about a start that is not decided is repeated
REMINDER = 3600.0  # seconds between two log lines about a process that does not end
ANSWER = 2.0  # seconds for which the other process may owe an answer

T = TypeVar("T")

log = logging.getLogger(__name__)


def when_decided(start: Callable[[], T], sleep: Callable[[float], None] = time.sleep) -> T:
    """The result of ``start``, which is tried again while another process decides its own start,
    because that may restore the database. ``AlreadyRunning`` once it has decided."""
    said_at: float | None = None
    while True:
        try:
            return start()
        except AlreadyRunning as other:
            if other.decided:
                raise
            if said_at is None or time.monotonic() >= said_at + REPEAT:
                said_at = time.monotonic()
                log.warning("%s, and has not decided its start yet; waiting for it", other)
        sleep(DECISION_POLL)


class Standby:
    """Of one database, from the refusal of its lock until the lock is free."""

    def __init__(
        self,
        config: SqliteReplicatorConfig,
        other: AlreadyRunning,
        wait: Callable[[], None],
        proceed: Callable[[ReplicatorError | None], None],
        abandoned: Callable[[], None],
    ) -> None:
        """``wait`` takes the lock. After it ``proceed`` is called, with the error of the wait if it
        failed, or ``abandoned`` if the process ends."""
        self.other = other
        self.durable_txid = 0  # as the other process answered
        self._config = config
        self._wait, self._proceed, self._abandoned = wait, proceed, abandoned
        self._ending = False
        self._decides = threading.Lock()  # between the lock and the end of the process
        self._remind_at = time.monotonic() + REMINDER
        name = f"replicator-standby:{config.address.prefix}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        log.info("%s; standby: continuing here after its end", self.other)
        self._thread.start()

    def _run(self) -> None:
        error: ReplicatorError | None = None
        try:
            self._wait()
        except ReplicatorError as trouble:
            error = trouble
        with self._decides:
            if self._ending:
                self._abandoned()
            else:
                self._proceed(error)

    def remind(self) -> None:
        """Repeats in the log, from time to time, that the other process has not ended."""
        if time.monotonic() >= self._remind_at:
            self._remind_at = time.monotonic() + REMINDER
            log.info("%s is still replicated by another process; standby", self._config.source)

    def flush(self, timeout: float) -> ReplicatorError | None:
        """Has the other process make every commit durable within ``timeout`` seconds; the error
        if it did not. An application that ran here wrote to the same database."""
        cache, url = self._config.cache, self._config.address.url
        try:
            status = ask(cache, {"command": "status"}, answer_timeout=ANSWER)
            if status["url"] != url:
                return NotDurable(f"{self.other}, and replicates it to {status['url']}, not {url}")
            request = {"command": "flush", "timeout": timeout}
            self.durable_txid = ask(cache, request, answer_timeout=ANSWER)["txid"]
        except ReplicatorError as error:
            return NotDurable(f"{self.other}, and does not make everything durable: {error}")
        return None

    def end(self) -> None:
        """Nothing proceeds after this. A thread that sleeps in the kernel is left there; it would
        release the lock at once."""
        with self._decides:
            self._ending = True
