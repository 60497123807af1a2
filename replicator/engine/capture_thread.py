"""The capture thread: waits for the database, joins the archive, follows it until it is stopped.

It is the one thread that decides. Every stage reports incidents to its mailbox; it drains them and
gives them to the next join. Every way of losing continuity (a replaced file, a WAL that changed
unexpectedly, a full cache, a disk that refuses) ends the same way: it closes the database and joins
the archive again, which proves continuity or gives the reason why it cannot.

Owns: the order of waiting, joining and following, and its own health. Refuses: to give up before a
user has to act.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from replicator.cache.quota import CacheQuota
from replicator.engine.context import Context
from replicator.engine.incidents import OpenIncidents
from replicator.engine.requests import SNAPSHOTS, Requests
from replicator.engine.resume import Resume
from replicator.engine.session import Session, SessionFigures
from replicator.engine.wakeups import Wakeups
from replicator.errors import (
    AccessDenied,
    CacheFull,
    Cancelled,
    ConfigError,
    ContinuityLost,
    DatabaseReplaced,
    DatabaseUnusable,
    Fenced,
    LedgerDamaged,
    LocalIOError,
    RefusedError,
    ReplicatorError,
    StoreUnavailable,
)
from replicator.model import Cause, Health, Incident
from replicator.sqlite.live import LiveDatabase, identity, missing
from replicator.sqlite.wal_mode import CONSEQUENCE
from replicator.store.retry import Pauses
from replicator.system import clock
from replicator.system.limiter import CapacityLimiter
from replicator.system.mailbox import Wanted
from replicator.upload.uploader import Uploader
from replicator.verify.monitor import Monitor

log = logging.getLogger(__name__)


class CaptureThread:
    """One thread per database. Other threads send it messages."""

    def __init__(
        self,
        context: Context,
        resume: Resume,
        incidents: OpenIncidents,
        uploader: Uploader,
        monitor: Monitor,
        quota: CacheQuota,
        wakeups: Wakeups,
        *,
        joins: CapacityLimiter,
        captures: CapacityLimiter,
        busy_timeout: float,
        switch_in_use: bool,
    ) -> None:
        """``joins`` and ``captures`` bound how many databases of this process join their archive,
        and how many make segments, at the same time. ``busy_timeout`` is in seconds.
        ``switch_in_use``: switch a database to WAL mode although it is in use."""
        self._context = context
        self._resume = resume
        self._incidents = incidents
        self._uploader = uploader
        self._monitor = monitor
        self._quota = quota
        self._joins = joins
        self._captures = captures
        self._busy_timeout = busy_timeout
        self._switch_in_use = switch_in_use
        self._requests = Requests()
        self._stopping = threading.Event()
        self._asked = False  # whether the archive of a missing database has a history
        self._ask_after = 0.0  # monotonic
        self._undecidable = False  # a failure delays the decision how to join
        self._settled = threading.Event()  # opened, waiting or failed: start() may return
        self._refused: ReplicatorError | None = None  # why the thread ended before
        self._pauses = Pauses(context.limits.loop.retries)
        name = f"replicator-capture:{context.keys.prefix}"  # log lines show the prefix
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._session: Session | None = None
        self._progressed = True  # no session began yet, or the last one captured or slept once
        self.wakeups = wakeups
        self.health = Health("starting", since_ms=clock.now_ms())
        """waiting | starting | following | stalled | stopped | failed. An error stays until
        everything that is known to be committed was captured."""

    @property
    def failed(self) -> ReplicatorError | None:
        """Why the thread ended, None while it runs."""
        return self.health.error if self.health.state == "failed" else None

    @property
    def decided(self) -> bool:
        """True unless the first comparison with the archive is under way."""
        return self._resume.decided or self._undecidable or self.health.state != "starting"

    @property
    def figures(self) -> SessionFigures | None:
        """The newest session as the status shows it, None before the first."""
        session = self._session
        return session.figures if session is not None else None

    def start(self) -> None:
        """Begin; raises at once when the database cannot be opened. A failure after that is
        :attr:`failed`."""
        self._thread.start()
        self._settled.wait()
        if self._refused is not None:
            raise self._refused

    def stop(self) -> None:
        self._stopping.set()
        self._context.mailbox.wake()
        if self._thread.is_alive():
            self._thread.join()
        self._close_mailbox(Cancelled("the replicator stopped"))

    def _close_mailbox(self, error: ReplicatorError) -> None:
        self._requests.refuse(self._context.mailbox.close(error), error)
        self._requests.refuse_all(error)

    # ------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._follow_once()
            except (ContinuityLost, DatabaseReplaced) as reason:
                self._join_again(reason)
            except LedgerDamaged as error:
                self._begin_cache_anew(error)
            except ReplicatorError as error:
                if self._is_final(error):
                    self._fail(error)
                    return
                self._recover_from(error)
            except Exception as error:
                log.exception("unexpected error in the capture thread (bug)")
                text = f"unexpected error in the capture thread (bug): {error!r}"
                self._fail(ReplicatorError(text, code="defect"))
                return
        self._set_health("stopped", self.health.error)
        self._settled.set()

    def _set_health(self, state: str, error: ReplicatorError | None) -> None:
        before, self.health = self.health, self.health.after(state, error, at_ms=clock.now_ms())
        if state not in (before.state, "starting"):
            self._announce(state, error)

    def _announce(self, state: str, error: ReplicatorError | None) -> None:
        """The event of a new state; that of a failure has its own name if another writer won."""
        fenced = state == "failed" and isinstance(error, Fenced)
        self._context.mailbox.events.add(
            "fenced" if fenced else state,
            "" if error is None or state == "following" else str(error),
            code=error.code if error is not None and state != "following" else "",
        )

    def _join_again(self, reason: ReplicatorError) -> None:
        """At once after a session that made progress, else after a pause: the next join would
        most likely end in the same way."""
        if self._progressed:
            self._incidents.failed(reason)
            log.warning("%s; checking how the archive continues", reason)
        else:
            self._recover_from(reason)
        self._progressed = False

    def _begin_cache_anew(self, error: LedgerDamaged) -> None:
        """The cache was lost in use. Its segments that the store does not have are caught up from
        the database."""
        self._recover_from(error)
        try:
            self._context.cache.reopen()
            self._uploader.begin_anew()
        except ReplicatorError as trouble:
            self._recover_from(trouble)
        else:
            self._receive()  # reports about the ledger that was lost
            self._incidents.settle(Cause.LEDGER_LOST)

    def _is_final(self, error: ReplicatorError) -> bool:
        """True for an error that no waiting mends: the first refusal of a wrong setting, and a
        fence."""
        state = self._uploader.watermark.state
        if state.ended and error is state.health.error:
            return True
        if isinstance(error, DatabaseUnusable):
            return not self._settled.is_set()
        if isinstance(error, (ConfigError, AccessDenied)):
            with contextlib.suppress(LocalIOError):  # a cache that fails proves nothing
                return self._context.cache.head() is None
            return False
        return isinstance(error, RefusedError)

    def _fail(self, error: ReplicatorError) -> None:
        self._report(error)
        log.error("%s", error)
        self._set_health("failed", error)
        if not self._settled.is_set():
            self._refused = error
        self._uploader.end(error)
        self._close_mailbox(error)
        self._settled.set()

    def _report(self, error: ReplicatorError) -> None:
        self._context.mailbox.report(Incident(Cause.CAPTURE_FAILED, error=error))

    def _recover_from(self, error: ReplicatorError) -> None:
        pause = self._pauses.next()
        self._undecidable = True
        if not isinstance(error, Cancelled):
            self._incidents.failed(error)
            self._set_health("stalled", error)
            self._report(error)
            log.warning("%s; trying again in %.2g s", error, pause)
        self._settled.set()
        self._stopping.wait(pause)

    def _receive(self) -> None:
        """Empties the mailbox."""
        incidents, requests = self._context.mailbox.take()
        for incident in incidents:
            if incident.cause is Cause.SOURCE_DAMAGED:
                self._monitor.suspect(str(incident))
            else:
                self._incidents.add(incident)
        for request in requests:
            if request.wanted is Wanted.GENERATION:
                self._incidents.add(Incident(Cause.UNRESTORABLE, request.reason))
            self._requests.add(request)

    def _check_upload(self) -> None:
        state = self._uploader.watermark.state
        if state.ended and state.health.error is not None:
            raise state.health.error

    # -------------------------------------------------------------------- until it follows

    def _follow_once(self) -> None:
        if not self._wait_until(self._database_exists, "waiting"):
            return
        if not self._wait_until(self._cache_has_room, "stalled"):
            return
        self._set_health("starting", self.health.error)
        context = self._context
        database = LiveDatabase(
            context.source,
            busy_timeout=self._busy_timeout,
            switch_in_use=self._switch_in_use,
            files=context.files,
        )
        try:
            if database.switched:
                log.info("%s was switched to WAL mode: %s", database.path, CONSEQUENCE)
            self._settled.set()
            with self._joins.slot(self._stopping.is_set):
                session = self._join(database)
            self._follow(session)
        finally:
            database.close()

    def _join(self, database: LiveDatabase) -> Session:
        self._receive()
        self._incidents.joining()
        session = self._resume.join(database, self._stopping.is_set)
        if Cause.UNRESTORABLE not in self._incidents.causes:
            self._requests.answer(self._requests.of(Wanted.GENERATION), session.head.txid)
        return session

    def _wait_until(self, ready: Callable[[], bool], state: str) -> bool:
        """Wait in ``state``; False if the replicator stops first."""
        self._receive()
        while not ready():
            if self.health.state != state:
                self._begin_to_wait(state)
            self._settled.set()
            self._check_upload()
            if state == "waiting":
                self._ask_for_history()
                self._answer_without_database()
            if self._stopping.wait(self._context.limits.loop.wait_for_database):
                return False
            self._receive()
        return True

    def _begin_to_wait(self, state: str) -> None:
        error = self.health.error
        if state == "waiting":
            error = missing(self._context.source)
            log.warning("%s; waiting for it", error)
        else:
            log.info("the cache is full; waiting for the store")
        self._set_health(state, error)

    def _ask_for_history(self) -> None:
        """Without a record or a database, ask the archive once: is this database lost?"""
        if self._asked or time.monotonic() < self._ask_after:
            return
        try:
            error: ReplicatorError | None = self._resume.without_database()
            self._asked = True
        except (StoreUnavailable, AccessDenied, ConfigError) as trouble:
            error = trouble
            self._ask_after = time.monotonic() + self._pauses.next()
        if error is None:
            return
        if str(error) != str(self.health.error):
            log.warning("%s; %s", error, error.hint)
            self._report(error)
        self._set_health("waiting", error)

    def _answer_without_database(self) -> None:
        """A request about a database that does not exist is most likely one about a wrong path."""
        if self._database_exists():  # it came, and the requesting thread may have written to it
            return
        requests = self._requests.of(Wanted.CAPTURE, *SNAPSHOTS)
        self._requests.refuse(requests, missing(self._context.source))

    def _database_exists(self) -> bool:
        return identity(self._context.source) is not None

    def _cache_has_room(self) -> bool:
        # the next join drops the damaged segments among those that wait
        return Cause.SEGMENT_DAMAGED in self._incidents.causes or self._quota.half_is_free()

    # ---------------------------------------------------------------------- while it follows

    def _follow(self, session: Session) -> None:
        if self._session is not None:
            session.noticed_ms = self._session.noticed_ms  # an uncaptured commit keeps its age
        self._session = session
        self._set_health("following", self.health.error)
        try:
            with self.wakeups.watching():
                self._capture_until_stopped(session)
        except LedgerDamaged:
            raise
        except ReplicatorError:
            if session.detached:
                self._rescue(session)
            raise
        finally:
            session.close()

    def _rescue(self, session: Session) -> None:
        """Captures what the open files still have, before they are closed: no other file has it.
        A cache that is full or refuses is waited for; files that cannot be read are not."""
        tries = self._context.limits.loop.rescue_tries
        while True:
            try:
                for _ in session.rescue():
                    self._uploader.wake()
            except LedgerDamaged:
                raise
            except ContinuityLost as reason:
                log.warning("%s, so they are not captured", reason)
            except (CacheFull, LocalIOError) as error:
                self._check_upload()
                tries -= self._concerns_source(error)
                if tries:
                    self._recover_from(error)
                    if not self._stopping.is_set():
                        continue
                log.error("%s; the last commits before are not captured, if there were any", error)
                self._report(error)
            return

    def _concerns_source(self, error: ReplicatorError) -> bool:
        """True for an error about a file of the database, not of the cache."""
        path = error.path if isinstance(error, LocalIOError) else ""
        return bool(path) and not Path(path).is_relative_to(self._context.cache.directory)

    def _capture_until_stopped(self, session: Session) -> None:
        woken = True
        while not self._stopping.is_set():
            self._receive()
            self._check_incidents()
            self._context.metrics.add("wake_ups")
            self.wakeups.looks()
            more = session.look(hinted=woken)
            self._serve(session, more=more)
            upload = self._uploader.watermark.state
            woken = self.wakeups.sleep(session, upload, in_vain=woken and not more)
            self._progressed = True
            self._pauses.reset()
        session.look(hinted=True)  # once more: is it still the same file?
        self._capture(session)

    def _check_incidents(self) -> None:
        """Raises what ends the session."""
        self._check_upload()
        lost = self._incidents.get(Cause.LEDGER_LOST)
        if lost is not None and lost.error is not None:
            raise lost.error
        if self._incidents.unseen:
            raise ContinuityLost(self._incidents.unseen)

    def _capture(self, session: Session) -> None:
        for _ in session.capture():
            self._uploader.wake()

    def _serve(self, session: Session, *, more: bool) -> None:
        """Captures and takes snapshots, as far as that is due or requested."""
        requests = self._requests.of(Wanted.CAPTURE)
        capture = bool(requests) or (more and session.due(self._uploader.watermark.state))
        if capture:
            with self._captures.slot():
                self._capture(session)
        if capture or not more:
            session.care_for_files(promised=bool(requests))
        for _ in session.serve_snapshots(self._requests.of(*SNAPSHOTS)):
            self._uploader.wake()
        session.save_hashes(self._uploader.watermark.txid)
        self._show(session)
        if session.problem is not None:
            self._requests.refuse(requests, session.problem)
        else:
            self._requests.answer(requests, session.head.txid)

    def _show(self, session: Session) -> None:
        """The health while the session follows; an error stays until everything is captured."""
        problem, shown = session.problem, self.health.error
        if problem is not None and str(problem) != str(shown):
            log.error("%s", problem)
            self._report(problem)
        if problem is not None or session.noticed_ms is None:
            self._set_health(self.health.state, problem)
