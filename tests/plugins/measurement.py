"""The tests whose code is not measured: coverage takes half of the time of a test that repeats.

The chaos tests and the property tests run thousands of cases through lines that a test of their
room runs once, and kill the processes that they start, which then report nothing. A test of any
other folder is excluded by ``pytest.mark.no_cover``, the mark of pytest-cov.
"""

from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
REPEATING = (TESTS / "chaos", TESTS / "property")
PROCESSES = "COVERAGE_PROCESS_CONFIG"  # by this variable coverage starts in a new process


def pytest_collection_modifyitems(items):
    for item in items:
        if any(item.path.is_relative_to(folder) for folder in REPEATING):
            item.add_marker(pytest.mark.no_cover)


@pytest.fixture(autouse=True)
def unmeasured_processes(request, monkeypatch):
    """The processes of a test that is not measured are not measured either."""
    if request.node.get_closest_marker("no_cover"):
        monkeypatch.delenv(PROCESSES, raising=False)
