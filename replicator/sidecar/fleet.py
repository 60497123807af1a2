"""The databases of one process: one or many, each with its own replicator.

Owns: the databases (those that appear later too), when they start, are checked and retried, the
last flush of all, and what they share. Refuses: signals, exit codes and the command, which the
daemon owns.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

from replicator.config.file import ConfigFile, Search
from replicator.config.settings import SqliteReplicatorConfig
from replicator.engine.shared import SharedResources
from replicator.errors import (
    AccessDenied,
    AlreadyRunning,
    ConfigError,
    NotDurable,
    RefusedError,
    ReplicatorError,
    StoreUnavailable,
)
from replicator.sidecar.control_server import ControlServer
from replicator.sidecar.leases import Leases
from replicator.sidecar.member import Member
from replicator.sidecar.patterns import restore_patterns
from replicator.sidecar.starts import STARTS, Starts
from replicator.sqlite.connect import Prepare, unprepared
from replicator.system import process
from replicator.system.limiter import CapacityLimiter

AWAY = (StoreUnavailable, AccessDenied, ConfigError)  # a disk that is not mounted is the last one
FLUSHES = 64  # last flushes at the same time; they mostly wait

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SidecarTimes:
    """Intervals and limits of a sidecar, in seconds."""

    final_flush: float = 30.0  # to make the rest durable before the end
    orphans: float = 10.0  # for the processes of a command to end, after a signal
    poll: float = 0.2  # between two checks whether a wait was cancelled
    join_poll: float = 0.02  # between two checks whether a restored database continues its archive
    check: float = 1.0  # between two checks for failures: at 0.2 s, half of the idle CPU
    search: float = 5.0  # between two searches for new databases
    retry: float = 30.0  # until a start that failed is tried again
    # Between two checks whether memory can be returned. Memory that is returned under steady writes
    # is cleared and mapped again for the next segment: at 1 s, a tenth of their CPU.
    trim: float = 5.0


@dataclass(frozen=True, slots=True)
class Databases:
    """The databases that a sidecar replicates."""

    configs: Sequence[SqliteReplicatorConfig]
    search: Search | None  # finds databases that appear later; None: none will
    independent: bool  # a failure of one stops neither the others nor the process
    prepare: Prepare = unprepared  # of the connections of drills

    @classmethod
    def single(cls, config: SqliteReplicatorConfig, *, prepare: Prepare = unprepared) -> Databases:
        """One database; its failure ends the process."""
        return cls([config], None, independent=False, prepare=prepare)

    @classmethod
    def in_file(cls, file: ConfigFile) -> Databases:
        """Those of a file. ``ConfigError`` if two with an entry each would share an archive or a
        cache; a file of a pattern that cannot be replicated stops no other."""
        search = Search(file)
        configs, errors = search.look()
        for error in errors:
            log.error("%s; it is not replicated", error)
        for _, problem in search.problems:
            if problem not in errors:
                log.warning("%s yet", problem)
        return cls(configs, search if file.has_patterns else None, independent=True)


class Fleet:
    """Replicates databases from :meth:`start` until the end of its context."""

    def __init__(
        self,
        databases: Databases,
        times: SidecarTimes,
        *,
        hurry: Callable[[], bool],
        leases: Leases | None = None,
    ) -> None:
        """``hurry`` is true once the end must wait for nothing, neither uploads nor threads;
        ``leases`` are those of the handles that attach."""
        self.independent = databases.independent
        self._prepare_drills = databases.prepare
        self._search = databases.search
        self._times = times
        self._hurry = hurry
        self._shared = SharedResources()
        self._server = ControlServer(self.listing, leases=leases)
        self._resumed = CapacityLimiter(STARTS)
        self.members = [self._member(config) for config in databases.configs]
        self._patterns_restored = False  # before a command
        self._restoring = threading.Lock()  # no search: it would find a database too early
        self._patterns = threading.Thread(
            target=self._await_patterns, name="replicator-patterns", daemon=True
        )
        self._ended = threading.Event()
        self._starts = Starts(self._shared, self._ended)
        self._thread = threading.Thread(target=self._run, name="replicator-fleet", daemon=True)
        self._search_at = time.monotonic() + times.search
        self._trim_at = time.monotonic() + times.trim
        self._uploads = 0.0  # of all members, when memory was returned last

    @property
    def problems(self) -> list[tuple[str, ConfigError]]:
        """What the file names and no member replicates: a path or a pattern, with the reason."""
        return self._search.problems if self._search is not None else []

    def listing(self) -> list[dict[str, Any]]:
        """Every database of this sidecar, for programs: with its cache directory, whose socket
        answers for it, or with the reason why it is not replicated."""
        databases: list[dict[str, Any]] = [
            {
                "database": str(member.config.source),
                "url": member.config.address.url,
                "cache": str(member.config.cache),
            }
            for member in self.members
        ]
        problems = [
            {"database": name, "url": "", "error": error.to_dict()} for name, error in self.problems
        ]
        return databases + problems

    def _member(self, config: SqliteReplicatorConfig) -> Member:
        return Member(
            config,
            self._shared,
            self._server,
            prepare=self._prepare_drills,
            independent=self.independent,
            starts=self._resumed,
            retry=self._times.retry,
        )

    def claim(self) -> None:
        """Take the lock of each database, and answer commands before its start is decided."""
        for member in self.members:
            member.claim()

    def prepare(self, *, around_command: bool) -> list[Member]:
        """Before a command, or a single database: decide the start of each, and return those that
        were restored. The error of a refusal or a restore is raised.

        ``around_command``: an application must not start anew over a backup, so every database
        that is missing is restored. Without a command, each of several databases decides its start
        in a thread, so that none waits for the store of another.
        """
        if not self.independent:
            return [
                member for member in self.members if member.prepare(around_command=around_command)
            ]
        if not around_command:
            return []
        return self._starts.each(_prepare, self.members) + self._restore_patterns()

    def _restore_patterns(self) -> list[Member]:
        """Restore the databases that the bucket holds below a pattern, and that are not here."""
        if self._search is None:
            return []
        restored, errors = restore_patterns(
            self._search.file, self._shared, around_command=True, threads=STARTS
        )
        if errors:
            raise errors[0]
        self._patterns_restored = True
        added = self._add(self._search.look())
        return [member for member in added if member.config.database in restored]

    def _await_patterns(self) -> None:
        """The same in a thread, for those databases that are set to it. Again while a bucket does
        not answer."""
        assert self._search is not None  # else there is no such thread
        file = self._search.file
        while not self._ended.is_set():
            with self._restoring:
                _, errors = restore_patterns(
                    file, self._shared, around_command=False, threads=STARTS
                )
            self._search_at = time.monotonic()  # it adds them
            if not any(isinstance(error, AWAY) for error in errors):
                return
            self._ended.wait(self._times.retry)

    def start(self) -> None:
        """Start every database. Independent ones start in threads, see :meth:`wait_ready`; the
        error of another one is raised here."""
        for member in self.members:
            if member.standby is not None or member.started:
                continue
            if self.independent:
                self._begin(member)
            else:
                member.start()
        self._thread.start()
        if self._search is not None and not self._patterns_restored:
            self._patterns.start()

    def wait_ready(self, restored: Iterable[Member], cancelled: Callable[[float], bool]) -> None:
        """Wait for the first start of each database, until ``cancelled(seconds)`` is true.

        It must be known of each whether it continues its archive; the error of a refusal is raised,
        because the application would write to a database that is not replicated. The ``restored``
        ones must also be known to be where their archives end. A write before that would make
        them differ: the archive would not continue, and would need a new snapshot.
        """
        while self._starts and not cancelled(self._times.poll):
            pass
        for member in self.members:
            while member.started and not (member.replicator.decided or member.replicator.failed):
                if cancelled(self._times.join_poll):
                    return
            error = member.replicator.failed or member.error
            if isinstance(error, RefusedError):
                raise error
        for member in restored:
            while member.replicator.status().state == "starting" and not cancelled(
                self._times.join_poll
            ):
                pass
        for member in self.members:
            member.announce()

    def _begin(self, member: Member) -> None:
        self._starts.begin(member, member.try_start)

    @property
    def failed(self) -> bool:
        """True if nothing is replicated, and only a person can change that."""
        return self._search is None and all(member.failed for member in self.members)

    def _run(self) -> None:
        while not self._ended.wait(self._times.check):
            try:
                self.check()
            except ReplicatorError as error:
                log.error("%s", error)
            except Exception:
                log.exception("unexpected error (bug) while checking the databases")

    def check(self) -> None:
        """The periodic work: notice failures, retry starts, find new databases, return memory."""
        now = time.monotonic()
        for member in self.members:
            member.check()
            if member.started:
                member.check_path()
            elif not member.failed and now >= member.retry_at:
                self._begin(member)
        if self._search is not None and now >= self._search_at and not self._restoring.locked():
            self._search_at = now + self._times.search
            self._add_new(self._search)
        if now >= self._trim_at:
            self._trim_at = now + self._times.trim
            self._trim_heap()

    def _add_new(self, search: Search) -> None:
        found = search.look()
        if not self._ended.is_set():
            for member in self._add(found):
                self._begin(member)

    def _add(self, look: tuple[list[SqliteReplicatorConfig], list[ConfigError]]) -> list[Member]:
        """Add the databases that a search found. The application made their files, so none of them
        is moved aside."""
        found, errors = look
        for error in errors:
            log.error("%s; it is not replicated", error)
        added = []
        for config in found:
            log.info("found a new database: %s", config.database)
            added.append(self._member(replace(config, auto_restore=False, restore=False)))
        self.members += added
        return added

    def _trim_heap(self) -> None:
        """Return memory after uploads: glibc would keep the buffers of a burst for ever."""
        uploads = sum(member.uploads for member in self.members)
        if uploads != self._uploads:
            process.trim_heap()
            self._uploads = uploads

    def flush(self) -> list[Member]:
        """Make everything durable within ``final_flush`` seconds, or until the end hurries.

        Returns the databases for which that failed, in their order, each with its error.
        """
        self._ended.set()
        for member in self.members:
            member.begin_last_flush()
        until = time.monotonic() + self._times.final_flush
        late = self._flush(list(self.members))
        if late:
            log.info(
                "not everything is uploaded yet; trying for %.0f s at most, and a second signal "
                "ends at once",
                self._times.final_flush,
            )
        while late and not self._hurry() and time.monotonic() < until:
            late = self._flush(list(late))
        for member, error in late.items():
            member.error = error
        return [member for member in self.members if member.error is not None]

    def _flush(self, members: Sequence[Member]) -> dict[Member, NotDurable]:
        """One attempt each; those for which a further one may succeed."""
        errors = _each(lambda member: member.flush(self._times.poll), members, threads=FLUSHES)
        late = {}
        for member, error in zip(members, errors, strict=True):
            retried = member.started or member.standby is not None
            if isinstance(error, NotDurable) and retried:
                late[member] = error
            else:
                member.error = error
        return late

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        """Ends every thread, unless the end hurries: a request to a store that hangs may take
        minutes. The cache survives the end of the process at any instant."""
        closing = threading.Thread(target=self._close, name="replicator-close", daemon=True)
        closing.start()
        while closing.is_alive() and not self._hurry():
            closing.join(self._times.poll)

    def _close(self) -> None:
        self._ended.set()
        self._shared.ending.set()
        for thread in (self._thread, self._patterns):
            if thread.is_alive():
                thread.join()
        self._starts.close()
        _each(Member.stop, self.members, threads=FLUSHES)
        self._server.close()
        self._shared.close()


def _prepare(member: Member) -> bool:
    """True if the database was restored before a command."""
    try:
        return member.prepare(around_command=True)
    except AlreadyRunning as error:
        log.error("%s could not be prepared: %s", member.config.database, error)
        return False


def _each(work: Callable[[Member], T], members: Sequence[Member], *, threads: int) -> list[T]:
    """The results of ``work`` for each member, made in ``threads`` threads.

    One member needs none: a signal then interrupts the work.
    """
    if len(members) < 2:
        return [work(member) for member in members]
    with ThreadPoolExecutor(threads, "replicator-each") as pool:
        return list(pool.map(work, members))
