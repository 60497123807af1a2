"""Real web servers under load: each kind of end of their processes, and the loss of the machine.

Nothing that a client got a 200 for is missing: after an end of the application from the bucket
alone, after SIGKILL of everything after the next start on that machine.
"""

import contextlib
import os
import signal

import pytest

from tests.helpers.framework_sites import ORDERS, SITES
from tests.helpers.replication import LONG

# ------------------------------------------------------------------------ ends, under load


def terminated(machine):
    """A supervisor stops the service."""
    machine.send(signal.SIGTERM)
    assert machine.ended() == 0, machine.log


def interrupted(machine):
    """Ctrl-C reaches every process of the terminal."""
    os.killpg(machine.process.pid, signal.SIGINT)
    machine.ended()


def worker_killed(machine):
    """The server starts another worker."""
    machine.send(signal.SIGKILL, machine.workers()[0])
    machine.until_new_worker()
    machine.load(ORDERS)
    terminated(machine)


def reloaded(machine):
    """HUP replaces every worker."""
    machine.send(signal.SIGHUP)
    machine.until_new_worker()
    machine.load(ORDERS)
    terminated(machine)


def master_killed(machine):
    """Orphaned workers may serve for a while; a supervisor ends those that remain."""
    workers = machine.workers()
    machine.send(signal.SIGKILL, machine.master)
    machine.process.wait(LONG)
    if machine.form == "inside":
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
    machine.ended()


def everything_killed(machine):
    """SIGKILL of all, the sidecar included: what `flush` reported is in the bucket, and the rest
    after the next start."""
    before = machine.acknowledged
    machine.call("replicator flush shop.db")
    machine.load(1)
    machine.kill_all()
    machine.ended()
    machine.check_bucket(at_least=before)
    machine.start()
    machine.load(ORDERS)
    terminated(machine)


ENDS = [terminated, interrupted, worker_killed, reloaded, master_killed, everything_killed]
SHORT = {("apsw", "around", terminated), ("Django", "inside", terminated)}


def cases():
    for name in SITES:
        for form in ("around", "inside"):
            for end in ENDS:
                if (name, form) == ("better-sqlite3", "inside"):
                    continue  # the library is one of Python
                if end is reloaded and name in ("better-sqlite3", "Huey"):
                    continue  # HUP ends node; Huey's queue is another process
                marks = [] if (name, form, end) in SHORT else [pytest.mark.frameworks]
                yield pytest.param(
                    name, form, end, marks=marks, id=f"{name}, {form}, {end.__name__}"
                )


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "form", "end"), list(cases()))
def test_no_order_that_was_acknowledged_is_lost(machine_with, scoreboard, request, name, form, end):
    """A restore from the bucket alone has each of them, with its content, and so has the
    application on a new machine."""
    if name == "better-sqlite3":
        request.getfixturevalue("node")
    machine = machine_with(SITES[name], form)
    machine.start()
    machine.load(ORDERS)
    end(machine)
    machine.check_bucket()
    if end in (terminated, everything_killed) and "frameworks" in request.keywords:
        machine.lose()
        machine.start()
        machine.check_site()
        machine.load(ORDERS)
        terminated(machine)
        machine.check_bucket()
    figure = f"{len(machine.acknowledged):,} acknowledged, 0 lost"
    scoreboard(f"{name}, replicator {form}: {end.__name__.replace('_', ' ')}", figure)
