"""A handle as integrations of frameworks see it, without a sidecar."""

from replicator.errors import NotDurable, NotRunning
from replicator.model import Position, unstarted


class FakeHandle:
    """Records each flush; ``away`` makes the next ones fail, as a store that does not answer."""

    def __init__(self):
        self.flushes, self.away = [], False

    def flush(self, timeout=None):
        self.flushes.append(timeout)
        if self.away:
            raise NotDurable("transaction 7 of /srv/secret.db is not durable", txid=7)
        return Position("0" * 16, len(self.flushes))

    def status(self):
        if self.away:
            raise NotRunning("no sidecar answers in /srv/secret", path="/srv/secret")
        return unstarted("/srv/secret.db", "s3://secret/app.db")
