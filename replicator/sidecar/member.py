"""One database of a fleet: its replicator, its control socket, and why it is not replicated.

Owns: start, standby, failure and last flush of one database. Refuses to decide what a failure means
for the other databases and for the process.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import replace
from typing import TypeGuard

from replicator.config.settings import SqliteReplicatorConfig
from replicator.engine.engine import LastFlush
from replicator.engine.in_process import InProcessReplicator
from replicator.engine.shared import SharedResources
from replicator.errors import (
    AlreadyRunning,
    CacheInUse,
    ConfigError,
    DatabaseUnusable,
    NotDurable,
    RefusedError,
    ReplicatorError,
)
from replicator.model import RestoreReport
from replicator.recovery.start import Command
from replicator.sidecar.control_server import ControlServer, ControlSocket
from replicator.sidecar.moved import SecondPlace
from replicator.sidecar.standby import Standby, when_decided
from replicator.sqlite.connect import Prepare
from replicator.system.limiter import CapacityLimiter

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
        self,
        config: SqliteReplicatorConfig,
        shared: SharedResources,
        server: ControlServer,
        *,
        prepare: Prepare,
        independent: bool,
        starts: CapacityLimiter,
        retry: float,
    ) -> None:
        """``independent`` of the other databases. ``starts`` limits how many members that waited
        for another process start at once. ``retry`` is the time in seconds until a start that
        failed is tried again."""
        self.error: ReplicatorError | None = None  # why it is not replicated
        self.started = False
        self.retry_at = 0.0  # time of the next start after one that failed (monotonic)
        self.standby: Standby | None = None  # while another process replicates the database
        self._stands_by = independent if config.standby is None else config.standby
        self._starts, self._retry = starts, retry
        self._prepare_drills = prepare
        self._prepared = False  # the start is decided, and nothing is left but to follow
        self._last_flush = LastFlush()
        self._shared = shared
        self._server = server
        self._control: ControlSocket | None = None
        self._restored = self._announced = False
        self._use(config)

    def _use(self, config: SqliteReplicatorConfig) -> None:
        self.config = config
        self.replicator = InProcessReplicator(
            config, shared=self._shared, prepare=self._prepare_drills
        )
        self._second = SecondPlace(config, self.replicator, self._server)

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

    def claim(self) -> None:
        """Take the lock, and answer commands before the start is decided. Makes no directory for a
        path that may be wrong: :meth:`prepare` decides that."""
        if self.config.database.parent.is_dir():
            self.replicator.claim()
            self._open_control()

    @property
    def reachable(self) -> bool:
        """True if commands get answers."""
        return self._control is not None

    def prepare(self, *, around_command: bool) -> bool:
        """Restore the database if the start demands it; True if it was restored.

        If another process replicates the database, standby begins. A command then has to find the
        database that the other process has decided to use.
        """
        if around_command and self.config.standby is None:
            self._stands_by = True
        try:
            return self._decide(around_command=around_command)
        except AlreadyRunning as other:
            if not self._may_stand_by(other):
                raise
            if around_command:
                self._use(replace(self.config, auto_restore=False, restore=False))
                self.replicator.decide_in_use(other)
            self._stand_by(other)
            return False

    def _decide(self, *, around_command: bool) -> bool:
        command = Command.AROUND if around_command else None
        if around_command and self._stands_by:
            report = when_decided(lambda: self.replicator.prepare(command))
        else:
            report = self.replicator.prepare(command)
        self._prepared, self._restored = True, report is not None
        if report is not None:
            log_restore(report)
        return self._restored

    def _may_stand_by(self, error: ReplicatorError) -> TypeGuard[AlreadyRunning]:
        other = isinstance(error, AlreadyRunning) and not isinstance(error, CacheInUse)
        return other and self._stands_by and self.standby is None

    def _stand_by(self, other: AlreadyRunning) -> None:
        self.error, self.retry_at = other, math.inf
        replicator = self.replicator
        self.standby = Standby(
            self.config, other, replicator.wait_for_lock, self._proceed, replicator.stop
        )
        self.standby.start()

    def _proceed(self, error: ReplicatorError | None) -> None:
        """The other process has ended, and this one has the lock, unless there is an ``error``."""
        if error is not None:
            self._start_failed(error)
        else:
            with self._starts.slot():
                self.try_start()
        self.standby = None

    def start(self) -> None:
        """Start replication, then answer commands. Raises the error of the replicator."""
        if not self._prepared:
            self._decide(around_command=False)
        self._prepared = False
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

    def try_start(self) -> None:
        """As :meth:`start`, but keeps the error, and the time of the next attempt.

        The control socket also answers ``status`` when replication failed to start, unless another
        process replicates the database and answers there.
        """
        try:
            self.start()
        except ReplicatorError as error:
            if self._may_stand_by(error):
                self._stand_by(error)
            else:
                self._start_failed(error)
        except Exception as error:
            log.exception("%s: unexpected error (bug) at the start", self.config.database)
            self._start_failed(ReplicatorError(f"unexpected error (bug) at the start: {error!r}"))

    def _start_failed(self, error: ReplicatorError) -> None:
        if str(error) != str(self.error or ""):
            log.error("%s is not replicated: %s", self.config.database, error)
        self.error, self.retry_at = error, time.monotonic() + self._retry
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
        """Notice that replication failed for good, or that the start is decided."""
        if self.standby is not None:
            self.standby.remind()
        self.announce()
        error = self.replicator.failed
        if error is not None and self.error is None:
            self.error = error
            log.error("replication of %s failed: %s", self.config.database, error)

    def announce(self) -> None:
        """Let the commands of other sidecars start, once the start of this one is decided: it did
        not fail, and a restored database is known to be where its archive ends."""
        replicator = self.replicator
        if self._announced or not self.started or replicator.failed is not None:
            return
        starting = replicator.status().state == "starting"
        if replicator.decided and not (self._restored and starting):
            replicator.announce()
            self._announced = True

    def check_path(self) -> None:
        """Notice that a link on the path was switched."""
        self._second.look()

    def begin_last_flush(self) -> None:
        """The next :meth:`flush` includes everything that is committed now."""
        self._last_flush = LastFlush()

    def flush(self, timeout: float) -> ReplicatorError | None:
        """Try to make every commit durable within ``timeout`` seconds; the error if that failed.
        A further attempt continues with the same transactions."""
        if self.standby is not None:
            return self.standby.flush(timeout)
        self.check()
        if self.error is not None:
            return self.error
        if not self.started:
            return NotDurable(f"{self.config.database} was not started before the end")
        try:
            self.replicator.finish(timeout, self._last_flush)
        except ReplicatorError as error:
            return error
        return None

    @property
    def durable_txid(self) -> int:
        """The newest transaction that is known to be durable."""
        if self.standby is not None:
            return self.standby.durable_txid
        return self.replicator.status().durable_txid

    def missing(self) -> str:
        """The amount that is not durable: segments in the cache, and the rest of the WAL."""
        if self.standby is not None:
            return "the next start here continues"
        status = self.replicator.status()
        if not status.txid:
            return "nothing was captured from it"
        return (
            f"{status.txid - status.durable_txid} transactions, {status.pending_bytes} bytes in "
            f"{status.pending_segments} segments wait in {self.config.cache}; {status.lag_bytes} "
            "bytes of committed WAL are not durable"
        )

    def stop(self) -> None:
        if (standby := self.standby) is not None:
            standby.end()
        self._second.close()
        if self._control is not None:
            self._control.close()
        self.replicator.stop()
