"""A handle as integrations of frameworks see it, without a sidecar."""

from replicator import SqliteReplicatorConfig
from replicator.errors import NotDurable, NotRunning
from replicator.model import Position, unstarted


class FakeHandle:
    """Records the timeout of each wait; ``away`` makes the next ones fail, as a store that does not
    answer."""

    def __init__(self):
        self.waits, self.away = [], False
        self.config = SqliteReplicatorConfig(db_path="/srv/secret.db", url="s3://secret")

    def wait(self, database, *, timeout, cache_dir):
        """Stands for `replicator.wait_durable`."""
        assert (database, cache_dir) == (self.config.database, self.config.cache)
        self.waits.append(timeout)
        if self.away:
            raise NotDurable("transaction 7 of /srv/secret.db is not durable", txid=7)
        return Position("0" * 16, len(self.waits))

    async def wait_async(self, database, *, timeout, cache_dir):  # noqa: ASYNC109 - as the original
        """Stands for `replicator.app.aio.wait_durable`."""
        return self.wait(database, timeout=timeout, cache_dir=cache_dir)

    def status(self):
        if self.away:
            raise NotRunning("no sidecar answers in /srv/secret", path="/srv/secret")
        return unstarted("/srv/secret.db", "s3://secret/app.db")
