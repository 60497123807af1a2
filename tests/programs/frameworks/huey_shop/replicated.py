"""The queue of tasks.py with its replicator: huey_consumer replicated.huey."""

from tasks import DATABASE, huey

from replicator import SqliteReplicator, SqliteReplicatorConfig

__all__ = ["huey"]

replicator = SqliteReplicator(SqliteReplicatorConfig.from_env(db_path=DATABASE))
replicator.start()
