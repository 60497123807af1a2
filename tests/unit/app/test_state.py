"""The state of a replication, asked by path."""

import pytest

from replicator.app.state import status_of
from replicator.errors import NotRunning


def test_without_a_sidecar_there_is_no_status(tmp_path):
    """NotRunning names the cache directory in which none answers."""
    with pytest.raises(NotRunning) as caught:
        status_of(tmp_path / "app.db", cache_dir=tmp_path / "cache")
    assert caught.value.path == str(tmp_path / "cache")
