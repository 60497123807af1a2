"""Processes whose threads strace follows, one system call at a time."""

import pytest

from tests.helpers.strace import ThreadTracer, reason_to_skip


@pytest.fixture
def tracer():
    """Starts processes of ``programs/cycle.py``; skips where strace may not trace."""
    if reason := reason_to_skip():
        pytest.skip(reason)
    made = ThreadTracer()
    yield made
    made.close()
