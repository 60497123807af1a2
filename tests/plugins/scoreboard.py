"""The scoreboard: prints the claims of the chaos tests and their figures after the run.

It also sets their effort: a short version by default, the full one with ``REPLICATOR_CHAOS=full``,
and with ``REPLICATOR_CHAOS=0.25`` that share of each count. ``REPLICATOR_SEED`` repeats a run as
far as processes allow.
"""

import os
import secrets

import pytest

CHAOS = os.environ.get("REPLICATOR_CHAOS") or "short"
SEED = int(os.environ.get("REPLICATOR_SEED") or secrets.randbits(32))
PROPERTY = "scoreboard"


def effort(short, full):
    """The count or duration for this kind of run. A share applies to counts only."""
    if CHAOS in ("short", "full"):
        return full if CHAOS == "full" else short
    counts = isinstance(short, int) and isinstance(full, int)
    return max(short, round(float(CHAOS) * full)) if counts else short


@pytest.fixture
def seed():
    """The seed of everything random in a test; a failed test prints it."""
    print(f"REPLICATOR_SEED={SEED}")  # noqa: T201
    return SEED


@pytest.fixture
def scoreboard(record_property):
    """``scoreboard(claim, figure)`` adds a line; call it last, so that a failed test has none."""

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
    terminalreporter.section(f"scoreboard ({CHAOS})")
    width = max(len(claim) for claim, _ in rows)
    for claim, figure in sorted(rows):
        terminalreporter.write_line(f"{claim:<{width}}  {figure}")
