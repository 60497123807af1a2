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
    AlreadyRunning,
    ConfigError,
    NotDurable,
    RefusedError,
    ReplicatorError,
)
from replicator.sidecar.control_server import ControlServer
from replicator.sidecar.member import Member
from replicator.sidecar.patterns import restore_patterns
from replicator.system import process

STARTS = 4  # databases that start or are restored at the same time
FLUSHES = 64  # last flushes at the same time; they mostly wait

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SidecarTimes:
    """Intervals and limits of a sidecar, in seconds."""

    final_flush: float = 30.0  # to make the rest durable before the end
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

    @classmethod
    def single(cls, config: SqliteReplicatorConfig) -> Databases:
        """One database; its failure ends the process."""
        return cls([config], None, independent=False)

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
        self, databases: Databases, times: SidecarTimes, *, hurry: Callable[[], bool]
    ) -> None:
        """``hurry`` is true once the end must wait for nothing, neither uploads nor threads."""
        self.independent = databases.independent
        self._search = databases.search
        self._times = times
        self._hurry = hurry
        self._shared = SharedResources()
        self._server = ControlServer(self.listing)
        self.members = [self._member(config) for config in databases.configs]
        self._starts = ThreadPoolExecutor(STARTS, "replicator-start")
        self._starting: set[Member] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()
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
        return Member(config, self._shared, self._server)

    def prepare(self, *, around_command: bool) -> list[Member]:
        """Decide the start of each database, and return those that were restored.

        ``around_command``: an application must not start anew over a backup, so every database
        that is missing is restored. The error of a refusal or a restore is raised, unless the
        databases are independent and no command follows: then it is logged.
        """
        strict = around_command or not self.independent

        def prepare(member: Member) -> bool:
            try:
                return member.prepare(around_command=around_command)
            except ReplicatorError as error:
                if strict and not (self.independent and isinstance(error, AlreadyRunning)):
                    raise
                log.error("%s could not be prepared: %s", member.config.database, error)
                return False

        done = _each(prepare, self.members, threads=STARTS)
        restored = [member for member, was in zip(self.members, done, strict=True) if was]
        return restored + self._prepare_patterns(around_command=around_command)

    def _prepare_patterns(self, *, around_command: bool) -> list[Member]:
        """Restore the databases that the bucket holds below a pattern, and that are not here."""
        if self._search is None:
            return []
        restored = restore_patterns(
            self._search.file, self._shared, around_command=around_command, threads=STARTS
        )
        self._add(self._search.look())
        return [member for member in self.members if member.config.database in restored]

    def start(self) -> None:
        """Start every database. Independent ones start in threads, see :meth:`wait_ready`; the
        error of another one is raised here."""
        for member in self.members:
            if self.independent:
                self._begin(member)
            else:
                member.start()
        self._thread.start()

    def wait_ready(self, restored: Iterable[Member], cancelled: Callable[[float], bool]) -> None:
        """Wait for the first start of each database, until ``cancelled(seconds)`` is true.

        It must be known of each whether it continues its archive; the error of a refusal is raised,
        because the application would write to a database that is not replicated. The ``restored``
        ones must also be known to be where their archives end. A write before that would make
        them differ: the archive would not continue, and would need a new snapshot.
        """
        while self._starting and not cancelled(self._times.poll):
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

    def _begin(self, member: Member) -> None:
        with self._lock:
            if member in self._starting or self._ended.is_set():
                return
            self._starting.add(member)

        def start() -> None:
            try:
                if not self._ended.is_set():
                    member.try_start(self._times.retry)
            finally:
                self._starting.discard(member)

        self._starts.submit(start)

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
            if member.started:
                member.check()
                member.check_path()
            elif not member.failed and now >= member.retry_at:
                self._begin(member)
        if self._search is not None and now >= self._search_at:
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
            if isinstance(error, NotDurable) and member.started:
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
        if self._thread.is_alive():
            self._thread.join()
        self._starts.shutdown(cancel_futures=True)
        _each(Member.stop, self.members, threads=FLUSHES)
        self._server.close()
        self._shared.close()


def _each(work: Callable[[Member], T], members: Sequence[Member], *, threads: int) -> list[T]:
    """The results of ``work`` for each member, made in ``threads`` threads.

    One member needs none: a signal then interrupts the work.
    """
    if len(members) < 2:
        return [work(member) for member in members]
    with ThreadPoolExecutor(threads, "replicator-each") as pool:
        return list(pool.map(work, members))
