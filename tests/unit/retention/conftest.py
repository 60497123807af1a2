"""Fixtures of the tests of retention."""

import pytest

from tests.helpers.retention import AgedArchive


@pytest.fixture
def aged(tmp_path):
    """An archive with small pages and a simulated clock, in which nothing has happened yet."""
    made = AgedArchive(tmp_path, page_size=512)
    yield made
    made.close()
