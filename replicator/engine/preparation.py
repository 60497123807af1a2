"""Prepares a start: brings the local database to a state that may be followed, or refuses.

Collects the inputs of the table of starts as far as it asks for them, and does what it decides:
restore, wait for the store, refuse. A database with content is compared by the engine, when it
joins the archive, unless an order to restore needs the answer before.

Owns: the order of the questions, and the errors of a refusal. Refuses: to decide.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from replicator.archive.keys import Keys
from replicator.archive.listing import newest_segment
from replicator.archive.point import NEWEST_POINT
from replicator.cache.cache import Cache
from replicator.cache.records import Fact, SegmentRecord
from replicator.capture.image import Image
from replicator.capture.limits import CaptureLimits
from replicator.config.settings import SqliteReplicatorConfig
from replicator.engine.backlog import send_first
from replicator.engine.decide import RemoteFacts, compared, continued
from replicator.engine.evidence import Evidence, file_fact
from replicator.engine.limits import SessionLimits
from replicator.engine.resume import hash_image, restored_here
from replicator.errors import (
    AccessDenied,
    AlreadyRunning,
    Cancelled,
    ConfigError,
    Fenced,
    RefusedError,
    ReplicatorError,
    StoreUnavailable,
)
from replicator.model import RestoreReport
from replicator.recovery.api import RestoreRequest, recover
from replicator.recovery.limits import DEFAULT_LIMITS
from replicator.recovery.progress import Meter
from replicator.recovery.start import (
    STAYS,
    Act,
    Archive,
    Asked,
    Command,
    Expect,
    Local,
    Order,
    Outcome,
    decide_start,
    log_line,
)
from replicator.sqlite.live import LiveDatabase, identity
from replicator.sqlite.local_file import FileState, examine_file, in_wal_mode
from replicator.store.base import Store
from replicator.store.retry import CAPTURE_RETRIES, Pauses
from replicator.system.files import Files
from replicator.upload.fencing import archive_head, still_holds

HASH_BYTES = 8 << 20  # of the image at a time

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """The database, its cache, and its archive."""

    database: Path
    cache: Path
    store: Store
    keys: Keys


def asked_of(config: SqliteReplicatorConfig, command: Command) -> Asked:
    """The start that a config and a command ask for."""
    order = Order.TAKE_OVER if config.take_over else Order.NONE
    return Asked(command, Order.RESTORE if config.restore else order, Expect(config.expect))


class Preparation:
    """One start. ``wait_store`` is the time in seconds for which an unreachable store is asked
    again. Once ``ending`` is set, a wait or a restore ends with ``Cancelled``. ``in_use``: another
    process replicates the database, so nothing may be restored."""

    def __init__(
        self,
        place: Place,
        asked: Asked,
        *,
        wait_store: float,
        files: Files,
        ending: threading.Event,
        in_use: AlreadyRunning | None = None,
    ) -> None:
        self._place = place
        self._asked = asked
        self._wait_store = wait_store
        self._files = files
        self._ending = ending
        self._in_use = in_use
        self._trouble: ReplicatorError | None = None  # why the archive is not known
        self._sent = in_use is not None  # nothing waits that a restore would lack

    def run(self) -> RestoreReport | None:
        """The report of a restore, None if nothing was restored. Raises the error of a refusal, of
        a store that stays unreachable, and those of a restore."""
        local, archive = self._local(), Archive.UNASKED
        until, pauses = time.monotonic() + self._wait_store, Pauses(CAPTURE_RETRIES)
        while True:
            outcome = decide_start(local, archive, self._asked)
            match outcome.act:
                case Act.ASK if self._may_wait(local):
                    return None
                case Act.ASK:
                    archive = self._answer(self._ask)
                    if archive is Archive.HISTORY and local is Local.FRESH:
                        local = self._compare()
                    continue
                case Act.WAIT_STORE if time.monotonic() < until:
                    self._say_why()
                    self._ending.wait(min(pauses.next(), max(0.0, until - time.monotonic())))
                    self._require_purpose()
                    archive = self._answer(self._ask)
                    continue
                case Act.RESTORE if not self._sent:
                    archive = self._answer(self._send)
                    continue
                case Act.COMPARE if self._asked.order is Order.RESTORE:
                    local = self._continues() or self._compare()
                    continue
            log.info("%s", log_line(local, archive, self._asked, outcome))
            return self._act(local, outcome)

    def _may_wait(self, local: Local) -> bool:
        """True for a plain start without a file: the engine asks while it waits for the file."""
        plain = self._asked == Asked(Command.RUN)
        return plain and local in (Local.MISSING, Local.REMOVED, Local.EMPTY)

    def _local(self) -> Local:
        state = examine_file(self._place.database, self._files)
        recorded = (self._place.cache / "state.db").exists()
        if state is FileState.MISSING and recorded:
            return Local.REMOVED
        plain = self._asked.command is Command.RUN and self._asked.order is Order.NONE
        if state is FileState.FRESH and recorded and plain:
            return Local.CONTENT  # the engine compares it with the record
        if state is FileState.FRESH and self._in_use:
            return Local.CONTENT  # the other process compared it
        return Local[state.name]

    def _answer(self, question: Callable[[], Archive]) -> Archive:
        """The archive, as the store answers a question about it."""
        try:
            return question()
        except StoreUnavailable as error:
            self._trouble = error
            return Archive.UNREACHABLE
        except (AccessDenied, ConfigError) as error:
            self._trouble = error
            return Archive.DENIED

    def _ask(self) -> Archive:
        newest = newest_segment(self._place.store, self._place.keys)
        return Archive.NONE if newest is None else Archive.HISTORY

    def _send(self) -> Archive:
        """Sends what waits in the cache: the newest state is complete with it only."""
        place, ordered = self._place, self._asked.order is Order.RESTORE
        send_first(
            place.store,
            place.keys,
            place.cache,
            self._files,
            ordered=ordered,
            interrupted=self._interrupted,
        )
        self._sent = True
        return Archive.HISTORY

    def _interrupted(self, seconds: float) -> bool:
        self._ending.wait(seconds)
        self._require_purpose()
        return False

    def _say_why(self) -> None:
        log.warning("%s; waiting for the store before the start", self._trouble)

    def _continues(self) -> Local | None:
        """The database as its cache knows it; None if it is not the one that the cache followed,
        or if the cache does not continue the archive."""
        place = self._place
        if not (place.cache / "state.db").exists():
            return None
        with Cache.open(place.cache, self._files) as cache:
            record = cache.head()
            if record is None:
                return None
            local = self._known(cache, record)
            if local not in STAYS:
                return None
            try:
                still_holds(place.store, place.keys, cache)
            except Fenced:
                return None
        return local

    def _known(self, cache: Cache, record: SegmentRecord) -> Local:
        """The database, compared with the newest record of its cache."""
        path = self._place.database
        if not in_wal_mode(path, self._files):  # do not switch it
            same = cache.get(Fact.DATABASE) == file_fact(identity(path))
            return Local.CONTINUED if same else Local.DIFFERENT
        hashes, limits = cache.load_hashes(record.last_txid), CaptureLimits()
        database = LiveDatabase(path, files=self._files)
        try:
            hold = database.hold()
            pages = SessionLimits().likeness_pages
            evidence = Evidence(database, cache, record, hashes, limits, pages)
            local = continued(evidence.facts(fresh=False))
            database.release(hold)
        finally:
            database.close()
        return local

    def _compare(self) -> Local:
        """Compares the database with the head of the archive, page by page."""
        place = self._place
        if not in_wal_mode(place.database, self._files):  # every archive is; do not switch it
            fresh = examine_file(place.database, self._files) is FileState.FRESH
            return Local.FRESH if fresh else Local.DIFFERENT
        head = archive_head(place.store, place.keys)
        if head is None:
            return Local.DIFFERENT
        database = LiveDatabase(place.database, files=self._files)
        try:
            hold = database.hold()
            with Image(database, CaptureLimits()) as image:
                hashes = hash_image(image, HASH_BYTES, self._ending.is_set)
            database.release(hold)
            fresh = not database.content().tables
            restored = restored_here(database, head)
        finally:
            database.close()
        state, size = hashes.state, hashes.page_size
        facts = RemoteFacts(head, size, state, restored=restored, fresh=fresh)
        return compared(facts, overtaken=False)

    def _act(self, local: Local, outcome: Outcome) -> RestoreReport | None:
        if outcome.act is Act.RESTORE and self._in_use is not None:
            raise self._missing_in_use(self._in_use)
        if outcome.act is Act.RESTORE:
            return self._restore()
        if outcome.act is Act.WAIT_STORE and self._trouble is not None:
            raise self._trouble
        if outcome.act is Act.REFUSE and local is not Local.NOT_A_DATABASE:
            raise self._refusal(local, outcome)
        return None  # the engine reports a file that is not a database

    def _restore(self) -> RestoreReport | None:
        """Restores the newest state; the files of the database's name move aside."""
        request = RestoreRequest(
            point=NEWEST_POINT,
            output=self._place.database,
            if_missing=False,
            dry_run=False,
            overwrite=False,
            allow_older=False,
            verify="none",
            move_aside=True,
        )
        store, prefix = self._place.store, self._place.keys.prefix
        meter = Meter(lambda _: self._require_purpose())
        return recover(
            request, store, prefix, files=self._files, meter=meter, limits=DEFAULT_LIMITS
        )

    def _require_purpose(self) -> None:
        if self._ending.is_set():
            raise Cancelled("the process ends before the database is ready")

    def _missing_in_use(self, other: AlreadyRunning) -> RefusedError:
        return RefusedError(
            f"{self._place.database} is missing and would be restored, but {other}",
            code="missing_in_use",
            hint="stop the other process; then a start restores the database",
        )

    def _refusal(self, local: Local, outcome: Outcome) -> ReplicatorError:
        if outcome.code == "store_denied" and self._trouble is not None:
            return self._trouble
        reasons = {
            "expected_existing": f"{self._place.store.url} has no archive of this database",
            "expected_new": f"{self._place.store.url} has an archive already",
            "orphaned_log": f"{self._place.database} has a WAL or a journal, but no database",
        }
        text = reasons.get(
            outcome.code,
            f"{self._place.database} is {local.value}, and {self._place.store.url} has its history",
        )
        return RefusedError(text, code=outcome.code, hint=outcome.hint)
