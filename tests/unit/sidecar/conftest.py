"""A database, a bucket in a directory, and the replicator's log as it was before."""

import pytest

from tests.helpers.replication import App


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.db"


@pytest.fixture
def app(path):
    with App(path) as app:
        app.insert(5)
        yield app


@pytest.fixture
def bucket(tmp_path):
    (tmp_path / "bucket").mkdir()
    return tmp_path / "bucket"
