"""A mailbox that remembers everything reported to it."""

from replicator.system.mailbox import Mailbox


class ReadableMailbox(Mailbox):
    def __init__(self):
        super().__init__()
        self.reported = []

    def report(self, incident):
        self.reported.append(incident)
        super().report(incident)

    def of(self, cause):
        """The incidents of that cause, oldest first."""
        return [incident for incident in self.reported if incident.cause is cause]
