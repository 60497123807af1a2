"""Fixtures of the tests of the capture."""

import pytest

from replicator.capture.limits import CaptureLimits


@pytest.fixture
def limits():
    """The default limits of the capture; a test passes others by parametrising ``limits``."""
    return CaptureLimits()
