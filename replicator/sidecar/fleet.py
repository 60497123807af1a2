"""Several databases in one process: each with its own replicator, none in the way of another.

Owns: which databases there are (those that appear later too), their starts, and why one is not
replicated. What concerns one database only (fenced, wrong settings, a file that is no database)
never stops the others: it is said in the log, in that database's status, and at the end. Refuses:
signals and exit codes, which are the daemon's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from replicator.config.file import ConfigFile, Search
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
from replicator.replicator import SqliteReplicator
from replicator.sidecar.control import ControlSocket, Reception
from replicator.system import process

LOOK = 1.0  # seconds between two looks at the members
SEARCH = 5.0  # seconds between two searches for new databases
AGAIN = 30.0  # seconds until a start that failed is tried once more
STARTS = 4  # at once
ENDS = 64  # last flushes at once; they mostly wait
POLL = 0.2
STORED = ("uploaded_bytes", "snapshots", "merges")  # what leaves memory to give back

log = logging.getLogger(__name__)


class Member:
    """One database of a fleet."""

    def __init__(
        self, config: SqliteReplicatorConfig, shared: SharedResources, reception: Reception
    ) -> None:
        self.config = config
        self.replicator = SqliteReplicator(config, shared=shared)
        self.error: ReplicatorError | None = None  # why it is not replicated
        self.started = False
        self.again_at = 0.0  # when to try once more (monotonic)
        self._reception = reception
        self._door: ControlSocket | None = None

    @property
    def lost(self) -> bool:
        """Whether only a person can mend it."""
        if self.started:
            return self.error is not None
        foreseen = isinstance(self.error, (ConfigError, RefusedError))
        return foreseen and not isinstance(self.error, DatabaseUnusable)

    def start(self) -> None:
        """Never raises: why it did not work is :attr:`error`."""
        try:
            self.replicator.start()
        except ReplicatorError as error:
            self._failed(error)
        except Exception as defect:
            log.exception("%s: a defect", self.config.database)
            self._failed(ReplicatorError(f"defect at the start: {defect!r}"))
        else:
            self.started, self.error = True, None
            log.info("following %s, backing up to %s", self.config.database, self.config.target.url)
        self._open_door()

    def _failed(self, error: ReplicatorError) -> None:
        if str(error) != str(self.error or ""):
            log.error("%s is not replicated: %s", self.config.database, error)
        self.error, self.again_at = error, time.monotonic() + AGAIN

    def _open_door(self) -> None:
        """Whoever asks for the status hears why there is none, too."""
        if self._door is not None or isinstance(self.error, AlreadyRunning):
            return  # the other replicator answers there
        try:
            door = ControlSocket(self.config.cache, self.replicator, self._reception)
            door.__enter__()
        except (OSError, ReplicatorError) as error:
            log.warning("%s: no command will be answered: %s", self.config.database, error)
        else:
            self._door = door

    def look(self) -> None:
        """Notice when replication failed for good."""
        failed = self.replicator.failed
        if failed is not None and self.error is None:
            self.error = failed
            log.error("%s is not replicated any more: %s", self.config.database, failed)

    def flush(self, until: float, given_up: Callable[[], bool]) -> None:
        """The last one; what could not be made durable is :attr:`error`."""
        self.look()
        if not self.started and self.error is None:
            self.error = NotDurable(f"{self.config.database} was not looked at yet")
        while self.error is None:
            try:
                self.replicator.flush(POLL)
                return
            except NotDurable as error:
                if given_up() or time.monotonic() >= until:
                    self.error = error
            except ReplicatorError as error:
                self.error = error

    def stop(self) -> None:
        if self._door is not None:
            self._door.__exit__(None, None, None)
        self.replicator.stop()


class Fleet:
    """The databases of a file. A context manager: it starts them, and stops them at the end."""

    def __init__(self, file: ConfigFile) -> None:
        """``ConfigError`` when two databases would share a place, or an entry cannot work."""
        self._file = file
        self._search = Search(file)
        found, clashes = self._search.look()
        for clash in clashes:
            raise clash
        self._shared = SharedResources()
        self._reception = Reception()
        self.members = [self._member(config) for config in found]
        self._starts = ThreadPoolExecutor(STARTS, "replicator-start")
        self._starting: set[Member] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="replicator-fleet", daemon=True)
        self._search_at = time.monotonic() + SEARCH
        self._stored = 0.0

    def _member(self, config: SqliteReplicatorConfig) -> Member:
        return Member(config, self._shared, self._reception)

    def restore_missing(self, *, everything: bool) -> list[Member]:
        """Restore the named databases that are missing: those set to ``auto_restore``, or all.
        The members that were; with ``everything`` it raises what a restore raises, because an
        application must not begin anew over a backup."""
        wanted = [
            member
            for member in self.members
            if (everything or member.config.auto_restore) and not member.config.database.exists()
        ]
        with ThreadPoolExecutor(STARTS, "replicator-restore") as pool:
            done = pool.map(lambda member: _restored(member, strict=everything), wanted)
            return [member for member, restored in zip(wanted, done, strict=True) if restored]

    def start(self) -> None:
        """Begin with every database; :meth:`wait_started` tells when each was tried."""
        for member in self.members:
            self._begin(member)
        self._thread.start()

    def wait_started(self, given_up: Callable[[float], bool]) -> None:
        """Return once each has been tried, or ``given_up(seconds)`` says so."""
        while self._starting and not given_up(POLL):
            pass

    def wait_joined(self, members: Iterable[Member], given_up: Callable[[float], bool]) -> None:
        """Let nobody write to restored databases before they proved to be where their logs end:
        then they continue these, and need no new snapshot."""
        for member in members:
            while member.replicator.status().state == "starting" and not given_up(POLL / 10):
                pass

    def _begin(self, member: Member) -> None:
        with self._lock:
            if member in self._starting or self._ended.is_set():
                return
            self._starting.add(member)

        def start() -> None:
            try:
                if not self._ended.is_set():
                    member.start()
            finally:
                self._starting.discard(member)

        self._starts.submit(start)

    @property
    def hopeless(self) -> bool:
        """Whether nothing is replicated, nor ever will be without a person."""
        return all(member.lost for member in self.members) and not self._file.has_patterns

    def _run(self) -> None:
        while not self._ended.wait(LOOK):
            try:
                self.look()
            except ReplicatorError as error:
                log.error("%s", error)
            except Exception:
                log.exception("the fleet met a defect")

    def look(self) -> None:
        """What is to be done now and then: notice failures, try again, find new databases."""
        now = time.monotonic()
        for member in self.members:
            if member.started:
                member.look()
            elif not member.lost and now >= member.again_at:
                self._begin(member)
        if self._file.has_patterns and now >= self._search_at:
            self._search_at = now + SEARCH
            self._find()
        self._tidy()

    def _find(self) -> None:
        found, clashes = self._search.look()
        for clash in clashes:
            log.error("%s; it is not replicated", clash)
        for config in found:
            log.info("found %s", config.database)
            member = self._member(config)
            self.members.append(member)
            self._begin(member)

    def _tidy(self) -> None:
        """Give memory back after uploads: glibc would keep the buffers of a burst for ever."""
        stored = sum(
            member.replicator.metrics.get(name) for member in self.members for name in STORED
        )
        if stored != self._stored:
            process.give_back()
            self._stored = stored

    def flush(self, seconds: float, given_up: Callable[[], bool]) -> list[Member]:
        """Make everything durable within the time, all databases at once; the members for which
        that did not come true, in the order of the file, each with its error."""
        self._ended.set()
        until = time.monotonic() + seconds
        with ThreadPoolExecutor(ENDS, "replicator-flush") as pool:
            list(pool.map(lambda member: member.flush(until, given_up), self.members))
        return [member for member in self.members if member.error is not None]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._starts.shutdown(cancel_futures=True)
        with ThreadPoolExecutor(ENDS, "replicator-stop") as pool:
            list(pool.map(Member.stop, self.members))
        self._reception.stop()
        self._shared.close()


def _restored(member: Member, *, strict: bool) -> bool:
    config = member.config
    log.info("%s does not exist; looking for its backup in %s", config.database, config.target.url)
    try:
        report = member.replicator.restore(if_missing=True)
    except ReplicatorError as error:
        if strict:
            raise
        log.error("%s could not be restored: %s", config.database, error)
        return False
    if report is None:
        log.info("there is none; %s may be made anew", config.database)
    elif report.objects:
        log.info(
            "restored %s to txid %d in %.1f s; proved by %s",
            report.output,
            report.txid,
            report.seconds,
            report.verified,
        )
    return report is not None and report.objects > 0
