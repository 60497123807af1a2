"""Leases: held as long as the other end is open anywhere, and the last words of a sidecar."""

import os
import socket
import threading

import pytest

from replicator.errors import AlreadyRunning, LocalIOError
from replicator.sidecar.leases import ENDING, Leases
from tests.helpers.errors import raises
from tests.helpers.replication import LONG


@pytest.fixture
def leases():
    """Those of an application's sidecar."""
    return Leases(hosted=True)


def taken(leases):
    """The end that a handle has."""
    ours, theirs = socket.socketpair()
    leases.add(theirs)
    return ours


def test_a_lease_ends_with_the_last_descriptor(leases):
    """A copy of the descriptor, as a forked child has one, holds the lease."""
    first, second = taken(leases), taken(leases)
    copy = first.dup()
    first.close()
    assert leases.wait(0.0) == 2
    copy.close()
    assert leases.wait(LONG) == 1
    second.close()
    assert leases.wait(LONG) == 0


def test_a_sidecar_that_ends_refuses_leases(leases):
    """It ends only without a lease, and from then on none is given."""
    held = taken(leases)
    assert not leases.close()
    held.close()
    assert leases.close()
    with raises(AlreadyRunning, code=ENDING, pid=os.getpid()):
        taken(leases)


def test_a_new_lease_ends_the_wait(leases):
    """`wait` returns when a lease comes, too."""
    waiting = threading.Thread(target=leases.wait, args=(LONG,))
    waiting.start()
    held = taken(leases)
    waiting.join(LONG)
    assert not waiting.is_alive()
    held.close()


def test_attached_handles_get_the_error_of_the_start(leases):
    """Those that attach during a start that fails get its error."""
    assert not leases.started
    leases.fail(LocalIOError("no", path="/x"))
    with raises(LocalIOError, path="/x"):
        leases.require_start()
    independent = Leases()
    independent.require_start()  # it has started


def test_the_last_one_gets_the_last_result(leases):
    """`leave` answers at once while another lease is held, and with the last result otherwise."""
    held = taken(leases)
    assert leases.leave(LONG) == {"last": False}
    held.close()
    assert leases.leave(0.0) == {"last": True}  # no result in time
    leases.finish({"status": None, "error": None})
    assert leases.leave(None) == {"last": True, "status": None, "error": None}
    assert Leases().leave(LONG) == {"last": False}  # an independent sidecar stays


def test_a_handle_that_comes_back_ends_the_wait_of_one_that_left(leases):
    """A lease is given while another handle waits for the end: that one waits no longer."""
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(leases.leave(None)))
    waiting.start()
    held = taken(leases)
    waiting.join(LONG)
    assert answers == [{"last": False}]
    held.close()


def test_a_connection_that_fails_is_no_lease(leases):
    """An error of the connection ends the lease."""
    ours, theirs = socket.socketpair()
    leases.add(theirs)
    theirs.close()
    assert leases.count() == 0
    ours.close()


def test_nothing_is_open_after_the_end(leases):
    """The connections are closed, and further ones are refused; a late ring does nothing."""
    held = taken(leases)
    leases.dispose()
    leases.dispose()
    leases.ring()
    assert held.recv(1) == b""
    with raises(AlreadyRunning, code=ENDING):
        taken(leases)
    held.close()
