"""Forks: a child that uses the database opens it for itself, or is refused."""

import os
import pickle
import threading

import pytest

from replicator.errors import ReplicatorError

ADD = "INSERT INTO users (name) VALUES (?)"
COUNT = "SELECT count(*) FROM users"


def in_child(work):
    """The result of ``work()`` in a forked child; the code of the error if it raised one."""
    receive, send = os.pipe()
    if (child := os.fork()) == 0:
        try:
            result = work()
        except ReplicatorError as error:
            result = error.code
        except Exception as error:  # noqa: BLE001 - the test compares it
            result = repr(error)
        os.write(send, pickle.dumps(result))
        os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as answer:
        result = pickle.load(answer)
    os.waitpid(child, 0)
    return result


def test_a_child_opens_the_database_for_itself(kit):
    """After a fork at rest both processes read and write."""
    kit.execute(ADD, ("Ada",))
    assert in_child(lambda: (kit.execute(ADD, ("Grace",)), kit.fetch_value(COUNT))[1]) == 2
    assert kit.fetch_value(COUNT) == 2
    kit.execute(ADD, ("Barbara",))


def test_no_descriptor_of_the_parent_reaches_the_child(kit):
    """SQLite in the child knows nothing of the locks of the parent: it holds its own."""
    kit.fetch_value(COUNT)

    def in_the_child():
        return [len([name for name in open_files() if name.startswith(str(kit.path))])]

    assert in_child(in_the_child) == [0]


def open_files():
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:  # the descriptor of the listing
            continue
    return found


@pytest.mark.parametrize("block", ["read", "transaction"])
def test_a_child_of_a_fork_amid_a_block_is_refused(kit, block):
    """Its connections would read and write without locks. The parent is not disturbed."""
    with getattr(kit, block)():
        assert in_child(lambda: kit.fetch_value(COUNT)) == "forked"
        assert in_child(lambda: kit.execute(ADD, ("Grace",))) == "forked"
    kit.execute(ADD, ("Ada",))
    assert kit.fetch_value(COUNT) == 1


def test_a_child_cannot_end_the_transaction_of_its_parent(kit):
    """The commit is that of the parent alone."""
    block = kit.transaction()
    with block as connection:
        connection.execute(ADD, ("Ada",))
        assert in_child(lambda: block.__exit__(None, None, None)) == "forked"
    assert kit.fetch_value(COUNT) == 1


def test_a_fork_waits_for_the_operations_of_other_threads(kit):
    """A child of a fork during a short transaction of another thread is a child of one at rest."""
    inside, end = threading.Event(), threading.Event()

    def write():
        with kit.transaction() as connection:
            connection.execute(ADD, ("Ada",))
            inside.set()
            end.wait(0.2)

    thread = threading.Thread(target=write)
    thread.start()
    inside.wait()
    assert in_child(lambda: kit.fetch_value(COUNT)) == 1
    thread.join()
