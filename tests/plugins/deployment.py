"""A live database with its writer processes, its replicator or sidecar, and its store."""

import shutil

import pytest

from tests.helpers.deployment import Deployment


@pytest.fixture
def deployment(tmp_path):
    """One database with a directory as its store; its processes end with the test."""
    deployment = Deployment(tmp_path)
    yield deployment
    deployment.close()


@pytest.fixture
def deployments(tmp_path):
    """``deployments(times, most)`` yields (deployment, count) until the counts add up to
    ``times``. Each deployment is fresh, so that no database grows for hours, and its files are
    removed when its part succeeded."""

    def fresh(times, most=100):
        for number, first in enumerate(range(0, times, most)):
            directory = tmp_path / f"deployment-{number}"
            directory.mkdir()
            deployment = Deployment(directory)
            try:
                yield deployment, min(most, times - first)
            finally:
                deployment.close()
            shutil.rmtree(directory)

    return fresh
