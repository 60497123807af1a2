"""The sidecar: replicators as a process of their own, alone or around the application.

Owns: the order of start and end, the command, and the exit code. SIGTERM, SIGINT, SIGHUP and
SIGQUIT mean "make everything durable, then end"; a command gets every signal, and its end is that
of the sidecar. The exit code is 0 only if everything is durable for every database.
"""

from __future__ import annotations

import logging

from replicator.config.file import ConfigFile
from replicator.config.settings import SqliteReplicatorConfig
from replicator.errors import ConfigError
from replicator.sidecar.fleet import Databases, Fleet, SidecarTimes
from replicator.sidecar.launch import RunRequest
from replicator.sidecar.logs import set_up_logging
from replicator.sidecar.signals import Signals
from replicator.system import process
from replicator.system.offspring import Offspring

log = logging.getLogger(__name__)


def run(request: RunRequest) -> int:
    """Run the sidecar that a command line asked for; the process's exit code."""
    databases = databases_of(request)
    set_up_logging(as_json=request.as_json, prefixed=databases.independent)
    return run_sidecar(databases, request.command, signals=Signals(), times=SidecarTimes())


def databases_of(request: RunRequest) -> Databases:
    """The databases of the request's file, or its single one. ``ConfigError`` otherwise."""
    if request.config_file is not None:
        return Databases.in_file(ConfigFile.load(request.config_file, **request.settings))
    return Databases.single(SqliteReplicatorConfig.from_env(**request.settings))


def run_sidecar(
    databases: Databases, command: list[str] | None, *, signals: Signals, times: SidecarTimes
) -> int:
    """Replicate until a signal, until nothing is left to replicate, or until ``command`` ends.

    Returns the process's exit code: that of the command if it is not 0, else that of the first
    database that is not durable at the end. Before a command, every missing database is restored
    if the bucket has it, and an error of that is raised, also the refusal of a start. So is any
    error at the start of a single database; several databases do not stop each other.
    """
    limits = process.raise_file_limit() if databases.independent else None
    with signals, Fleet(databases, times, hurry=signals.hurry) as fleet:
        with signals.ending_at_once():
            restored = fleet.prepare(around_command=command is not None)
        fleet.start()
        if command is None:
            code = 0
            while not signals.wait(times.check) and not fleet.failed:
                pass
        else:
            fleet.wait_ready(restored, signals.wait)
            ended = signals.so_far()  # before the command began
            code = 128 + ended if ended else _run_command(command, signals, limits, times)
        unfinished = finish(fleet)
    return code or unfinished


def _run_command(
    command: list[str], signals: Signals, limits: process.Limits | None, times: SidecarTimes
) -> int:
    """The exit code of the command, 128+N if signal N ended it, after the processes that it left
    behind have ended."""

    def started(pid: int) -> None:
        if limits is not None:
            process.set_file_limit(pid, limits)
        log.info("running %s as process %d", command[0], pid)

    processes = Offspring()
    try:
        code = signals.run(command, started, processes.environment())
    except OSError as error:
        raise ConfigError(f"cannot run {command[0]}: {(error.strerror or '').lower()}") from error
    _outlast(processes, code, signals, times)
    return 128 - code if code < 0 else code


def _outlast(processes: Offspring, code: int, signals: Signals, times: SidecarTimes) -> None:
    """Replicate until the last process of the command has ended.

    A server that failed or was ended leaves orphans: they get SIGTERM. A command that ended with 0
    and without a signal has started a process that is meant to stay.
    """
    if not (left := processes.alive()):
        return
    end = bool(code or signals.passed)
    log.warning(
        "the command has ended with %s and left the processes %s; %s",
        code,
        ", ".join(map(str, left)),
        "SIGTERM for them" if end else "replicating until they end, or a signal ends them",
    )
    if left := signals.outlast(processes, end=end, patience=times.orphans):
        log.warning(
            "the processes %s still run; the next start replicates their further commits",
            ", ".join(map(str, left)),
        )


def finish(fleet: Fleet) -> int:
    """The last flush of all databases; the exit code of the first that is not durable, or 0."""
    late = fleet.flush()
    for member in late:
        assert member.error is not None  # which makes it late
        name = f"{member.config.database}: " if fleet.independent else ""
        log.error("%s%s; %s", name, member.error, member.missing())
        if member.error.hint:
            log.error("hint: %s", member.error.hint)
    for _, problem in fleet.problems:
        log.error("%s", problem)
    _report(fleet, len(late))
    errors = [*(member.error for member in late), *(problem for _, problem in fleet.problems)]
    return next((error.exit_code for error in errors if error), 0)


def _report(fleet: Fleet, late: int) -> None:
    everyone = len(fleet.members)
    if fleet.independent:
        log.info("%d of %d databases are fully uploaded", everyone - late, everyone)
    elif not late:
        (member,) = fleet.members
        url = member.config.address.url
        log.info("everything up to txid %d is in %s", member.durable_txid, url)
