"""Keeps a lease: notices the end of the sidecar, and gets a lease of the next one.

Owns: the thread that waits for the end of the sidecar, and the pauses between attempts. Refuses: to
begin before a first lease exists, whose errors belong to the caller of ``start()``.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from replicator.errors import Cancelled, NotDurable, NotRunning, ReplicatorError
from replicator.handle.bell import Bell
from replicator.handle.lease import Lease

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SupervisorTimes:
    """In seconds."""

    pause: float = 0.1  # before the first attempt to get another sidecar
    longest_pause: float = 30.0  # between two attempts
    stranger: float = 10.0  # for a sidecar that no application started to be started again


class Supervisor:
    """Of one handle in one process. Any thread may call its methods."""

    def __init__(
        self,
        lease: Lease,
        connect: Callable[[Bell], Lease],
        attach: Callable[[Bell], Lease | None],
        times: SupervisorTimes,
    ) -> None:
        self.lease: Lease | None = lease  # None while no sidecar runs
        self.error: ReplicatorError | None = None  # why not
        self._connect = connect
        self._attach = attach
        self._times = times
        self._bell = Bell()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="replicator-handle", daemon=True)
        self._thread.start()

    def wait_lease(self, until: float) -> Lease:
        """The lease, waited for until then while no sidecar runs. Raises the reason, or
        ``NotDurable`` if another sidecar starts meanwhile."""
        with self._changed:
            while self.lease is None or self.lease.ended():
                seconds = until - time.monotonic()
                if self._stopped or seconds <= 0:
                    raise self._reason()
                self._changed.wait(min(seconds, 0.5))
            return self.lease

    def _reason(self) -> ReplicatorError:
        """Why a request has no sidecar."""
        if self._stopped:
            return ReplicatorError("the replicator was stopped")
        error = self.error or NotRunning("the sidecar ended, and another one starts")
        if isinstance(error, NotRunning):
            return NotDurable(str(error), hint="nothing is lost; try again")
        return error

    def stop(self, seconds: float) -> Lease | None:
        """End the thread, waited for up to ``seconds``; the lease, if there is one."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._bell.ring()
        if threading.current_thread() is not self._thread:
            self._thread.join(seconds)
        if not self._thread.is_alive():
            self._bell.close()
        with self._changed:
            lease, self.lease = self.lease, None
        return lease

    def _run(self) -> None:
        with contextlib.suppress(Cancelled):
            while True:
                assert self.lease is not None  # set before each wait
                self.lease.wait_end(self._bell)
                self._replace(self.lease)

    def _replace(self, lease: Lease) -> None:
        """Get the next lease after the sidecar of this one ended."""
        log.warning("the sidecar, process %d, ended; another one has to start", lease.pid)
        self._change(None, NotRunning(f"the sidecar, process {lease.pid}, ended"))
        lease.close()
        # A sidecar that no application started has a supervisor of its own, such as systemd.
        start_at = time.monotonic() + (0.0 if lease.hosted else self._times.stranger)
        pause, found = self._times.pause, None
        while found is None:
            self._bell.wait(pause)
            found = self._attempt(self._connect if time.monotonic() >= start_at else self._attach)
            if time.monotonic() >= start_at:
                pause = min(2 * pause, self._times.longest_pause)
        self._change(found, None)

    def _attempt(self, way: Callable[[Bell], Lease | None]) -> Lease | None:
        try:
            return way(self._bell)
        except Cancelled:
            raise
        except ReplicatorError as error:
            failure = error
        except Exception as error:
            log.exception("unexpected error (bug) at the start of a sidecar")
            failure = ReplicatorError(f"the sidecar cannot be started: {error!r}")
        if str(failure) != str(self.error):
            log.error("the sidecar cannot be started: %s", failure)
        self._change(None, failure)
        return None

    def _change(self, lease: Lease | None, error: ReplicatorError | None) -> None:
        with self._changed:
            stopped = self._stopped
            if not stopped:
                self.lease, self.error = lease, error
            self._changed.notify_all()
        if stopped:
            if lease is not None:
                lease.close()
            raise Cancelled("the handle stops")
