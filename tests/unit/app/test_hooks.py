"""Hooks: one lifecycle for profiling, metrics, logs, and policies that may veto."""

import logging
import sqlite3

import pytest

from replicator.app import (
    Database,
    LogOperations,
    OperationHook,
    RefuseWrites,
    SlowOperations,
)
from replicator.errors import RefusedError

CREATE = "CREATE TABLE IF NOT EXISTS t (x)"


class Journal(OperationHook):
    """Writes down each call."""

    def __init__(self, name, calls, *, refuse=""):
        self.name, self.calls, self.refuse = name, calls, refuse

    def before(self, operation):
        self.calls.append((self.name, "before", operation.kind, operation.text))
        if self.refuse and operation.text == self.refuse:
            raise RefusedError("not today")

    def after(self, operation, outcome):
        self.calls.append((self.name, "after", operation.kind, type(outcome.error)))


@pytest.fixture
def open_with_hooks(tmp_path):
    """Opens the database of the test with some hooks; all are closed at its end."""
    found = []

    def open_kit(*hooks):
        found.append(Database.open(tmp_path / "app.db", hooks=hooks))
        return found[-1]

    yield open_kit
    for each in found:
        each.close()


def test_each_operation_passes_its_hooks(open_with_hooks):
    """In order before the work, in reverse order after it; a failure is in the outcome."""
    calls = []
    db = open_with_hooks(Journal("a", calls), Journal("b", calls))
    with pytest.raises(sqlite3.OperationalError):
        db.fetch_all("SELECT nonsense")
    assert calls == [
        ("a", "before", "read", "SELECT nonsense"),
        ("b", "before", "read", "SELECT nonsense"),
        ("b", "after", "read", sqlite3.OperationalError),
        ("a", "after", "read", sqlite3.OperationalError),
    ]


@pytest.mark.parametrize(
    ("kind", "use"),
    [
        ("read", lambda db: db.fetch_all("SELECT 1")),
        ("read", lambda db: db.read().__enter__()),
        ("write", lambda db: db.execute(CREATE)),
        ("transaction", lambda db: db.transaction().__enter__()),
    ],
)
def test_a_hook_may_veto(open_with_hooks, kind, use):
    """Nothing is done then; hooks that had permitted the operation see its end."""
    calls = []
    veto = Journal("veto", [])
    veto.before = lambda operation: (_ for _ in ()).throw(RefusedError("not today"))
    db = open_with_hooks(Journal("a", calls), veto)
    with pytest.raises(RefusedError):
        use(db)
    assert [call[1:3] for call in calls] == [("before", kind), ("after", kind)]
    assert calls[1][3] is RefusedError


def test_a_policy_that_refuses_writes(open_with_hooks):
    """Reads are permitted; writes are again when the policy is off."""
    policy = RefuseWrites("the disk is being moved")
    db = open_with_hooks(policy)
    with pytest.raises(RefusedError) as failure:
        db.execute(CREATE)
    assert failure.value.code == "policy"
    with pytest.raises(RefusedError):
        db.transaction().__enter__()
    assert db.fetch_value("SELECT 1") == 1
    policy.active = False
    db.execute(CREATE)


def test_a_hook_that_fails_after_the_work_does_not_disturb_it(open_with_hooks, caplog):
    """The work is done; the failure is in the log."""
    broken = OperationHook()
    broken.after = lambda *_: 1 / 0
    assert open_with_hooks(broken).fetch_value("SELECT 1") == 1
    assert "ZeroDivisionError" in caplog.text


def test_slow_operations_are_kept_and_logged(open_with_hooks, caplog):
    """Those above the threshold, the newest last."""
    slow = SlowOperations(threshold=0.0, kept=2)
    db = open_with_hooks(slow)
    for number in (1, 2, 3):
        db.fetch_value(f"SELECT {number}")
    assert [operation.text for operation, _ in slow.recent] == ["SELECT 2", "SELECT 3"]
    assert "slow read" in caplog.text
    slow.threshold = 1000.0
    db.fetch_value("SELECT 4")
    assert len(slow.recent) == 2


def test_the_log_of_operations(open_with_hooks, caplog):
    """A line for each; failures are warnings."""
    caplog.set_level(logging.DEBUG)
    db = open_with_hooks(LogOperations())
    db.execute(CREATE)
    with pytest.raises(sqlite3.OperationalError):
        db.execute("nonsense")
    lines = [record for record in caplog.records if record.name == "replicator.app.hooks"]
    assert [record.levelname for record in lines] == ["DEBUG", "WARNING"]
    assert CREATE in lines[0].getMessage()
