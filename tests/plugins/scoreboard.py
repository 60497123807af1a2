"""The scoreboard: what the chaos tests claim and the figures they saw, printed after the run.

How hard they try is decided here too: a short version by default, all of it with
``REPLICATOR_CHAOS=full``. ``REPLICATOR_SEED`` repeats a run as far as processes can.
"""

import os
import secrets

import pytest

FULL = os.environ.get("REPLICATOR_CHAOS") == "full"
SEED = int(os.environ.get("REPLICATOR_SEED") or secrets.randbits(32))
PROPERTY = "scoreboard"


def effort(short, full):
    """How often, how many or how long: by the kind of run."""
    return full if FULL else short


@pytest.fixture
def seed():
    """Of everything random in a test; printed when the test fails."""
    print(f"REPLICATOR_SEED={SEED}")  # noqa: T201
    return SEED


@pytest.fixture
def scoreboard(record_property):
    """Call it with a claim and the figure seen; call it last, for a failed test has no line."""

    def note(claim, figure):
        record_property(PROPERTY, (claim, figure))

    return note


def pytest_terminal_summary(terminalreporter):
    rows = [
        value
        for report in terminalreporter.stats.get("passed", ())
        for name, value in report.user_properties
        if name == PROPERTY
    ]
    if not rows:
        return
    terminalreporter.section(f"scoreboard ({'full' if FULL else 'short'})")
    width = max(len(claim) for claim, _ in rows)
    for claim, figure in sorted(rows):
        terminalreporter.write_line(f"{claim:<{width}}  {figure}")
