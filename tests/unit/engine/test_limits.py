"""replicator.engine.limits: the numbers of the stages, made from the settings."""

from replicator import SqliteReplicatorConfig
from replicator.engine.limits import Limits


def test_the_defaults_of_the_stages_are_those_of_the_settings():
    """A default has one value, wherever it is read."""
    assert Limits.of(SqliteReplicatorConfig(db_path="x", bucket="b")) == Limits()
