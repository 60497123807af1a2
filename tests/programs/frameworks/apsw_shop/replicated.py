"""A configuration of gunicorn with the replicator: gunicorn -c replicated.py shop:application."""

from replicator import SqliteReplicator, SqliteReplicatorConfig


def post_worker_init(worker):
    """Starts in each worker; all workers share one sidecar."""
    config = SqliteReplicatorConfig.from_env(db_path="shop.db")
    worker.replicator = SqliteReplicator(config)
    worker.replicator.start()
