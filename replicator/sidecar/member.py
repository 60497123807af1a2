"""One database of a fleet: its replicator, its control socket, and why it is not replicated.

Owns: start, failure and last flush of one database. Refuses to decide what a failure means for
the other databases and for the process.
"""

from __future__ import annotations

import logging
import time

from replicator.config.settings import SqliteReplicatorConfig
from replicator.engine.shared import SharedResources
from replicator.errors import (
    AlreadyRunning,
    ConfigError,
    DatabaseUnusable,
    NotDurable,
    RefusedError,
    ReplicatorError,
)
from replicator.model import RestoreReport
from replicator.recovery.start import Command
from replicator.replicator import SqliteReplicator
from replicator.sidecar.control_server import ControlServer, ControlSocket
from replicator.sidecar.moved import SecondPlace

UPLOADS = ("uploaded_bytes", "snapshots", "merges")  # after these grow, memory can be returned

log = logging.getLogger(__name__)


def log_restore(report: RestoreReport) -> None:
    log.info(
        "restored %s to txid %d in %.1f s; verified by %s",
        report.output,
        report.txid,
        report.seconds,
        report.verified,
    )


class Member:
    """One database of a fleet, with a share of the process's resources."""

    def __init__(
        self, config: SqliteReplicatorConfig, shared: SharedResources, server: ControlServer
    ) -> None:
        self.config = config
        self.replicator = SqliteReplicator(config, shared=shared)
        self.error: ReplicatorError | None = None  # why it is not replicated
        self.started = False
        self.retry_at = 0.0  # time of the next start after one that failed (monotonic)
        self._server = server
        self._control: ControlSocket | None = None
        self._second = SecondPlace(config, self.replicator, server)

    @property
    def failed(self) -> bool:
        """True if no retry can help, only a person."""
        if self.started:
            return self.error is not None or self.replicator.failed is not None
        refused = isinstance(self.error, (ConfigError, RefusedError))
        return refused and not isinstance(self.error, DatabaseUnusable)

    @property
    def uploads(self) -> float:
        """A figure that grows with every upload."""
        return sum(map(self.replicator.metrics.get, UPLOADS))

    def prepare(self, *, around_command: bool) -> bool:
        """Restore the database if the start demands it; True if it was restored."""
        command = Command.AROUND if around_command else None
        report = self.replicator.prepare(command)
        if report is not None:
            log_restore(report)
        return report is not None

    def start(self) -> None:
        """Start replication, then answer commands. Raises the error of the replicator."""
        self.replicator.start()
        self.started, self.error = True, None
        waits = self.replicator.status().state == "waiting"
        log.info(
            "%s %s, backing up to %s",
            "waiting for" if waits else "following",
            self.config.source,
            self.config.address.url,
        )
        self._open_control()

    def try_start(self, retry: float) -> None:
        """As :meth:`start`, but keeps the error, and the time ``retry`` seconds from now.

        The control socket also answers ``status`` when replication failed to start, unless another
        process replicates the database and answers there.
        """
        try:
            self.start()
        except ReplicatorError as error:
            self._start_failed(error, retry)
        except Exception as error:
            log.exception("%s: unexpected error (bug) at the start", self.config.database)
            self._start_failed(
                ReplicatorError(f"unexpected error (bug) at the start: {error!r}"), retry
            )

    def _start_failed(self, error: ReplicatorError, retry: float) -> None:
        if str(error) != str(self.error or ""):
            log.error("%s is not replicated: %s", self.config.database, error)
        self.error, self.retry_at = error, time.monotonic() + retry
        if not isinstance(error, AlreadyRunning):
            self._open_control()

    def _open_control(self) -> None:
        if self._control is not None:
            return
        try:
            self._control = ControlSocket(self.config.cache, self.replicator, self._server)
        except (OSError, ReplicatorError) as error:
            log.warning(
                "%s: commands get no answer, the control socket cannot be opened: %s",
                self.config.database,
                error,
            )

    def check(self) -> None:
        """Notice that replication failed for good."""
        error = self.replicator.failed
        if error is not None and self.error is None:
            self.error = error
            log.error("replication of %s failed: %s", self.config.database, error)

    def check_path(self) -> None:
        """Notice that a link on the path was switched."""
        self._second.look()

    def flush(self, timeout: float) -> ReplicatorError | None:
        """Try to make every commit durable within ``timeout`` seconds; the error if that failed."""
        self.check()
        if self.error is not None:
            return self.error
        if not self.started:
            return NotDurable(f"{self.config.database} was not started before the end")
        try:
            self.replicator.flush(timeout)
        except ReplicatorError as error:
            return error
        return None

    def missing(self) -> str:
        """The amount that is not durable: segments in the cache, and the rest of the WAL."""
        status = self.replicator.status()
        if not status.txid:
            return "nothing of the database is in the bucket"
        return (
            f"{status.txid - status.durable_txid} transactions, {status.pending_bytes} bytes in "
            f"{status.pending_segments} segments wait in {self.config.cache}; {status.lag_bytes} "
            "bytes of committed WAL are not durable"
        )

    def stop(self) -> None:
        self._second.close()
        if self._control is not None:
            self._control.close()
        self.replicator.stop()
