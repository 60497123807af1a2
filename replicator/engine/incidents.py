"""Incidents that are open: reported, and not settled by a join yet.

Owns: which incidents are open, and why the archive is joined again. Refuses: to decide; see
:mod:`.decide`.
"""

from __future__ import annotations

import logging

from replicator.errors import ChangedOutside, DatabaseUnusable, ReplicatorError, StoreUnavailable
from replicator.model import Cause, Incident
from replicator.system.mailbox import Mailbox

# After one of these the archive has to be joined again.
CONTINUITY = frozenset(
    {
        Cause.ARCHIVE_LOST,
        Cause.OVERTAKEN,
        Cause.SEGMENT_DAMAGED,
        Cause.CHANGED_OUTSIDE,
        Cause.UNRESTORABLE,
    }
)

log = logging.getLogger(__name__)


class OpenIncidents:
    """Used by the capture thread alone."""

    def __init__(self) -> None:
        self._open: dict[Cause, Incident] = {}
        self._unseen = ""  # why to join again, if an incident came after the last join began
        self.reason = ""  # why the archive is joined again, in words; "" for the first time

    def add(self, incident: Incident) -> None:
        """Open an incident. Of two damaged segments the first one counts."""
        known = self._open.get(incident.cause)
        if known is not None and incident.cause is Cause.SEGMENT_DAMAGED:
            incident = min(known, incident, key=lambda each: each.txid or 0)
        self._open[incident.cause] = incident
        if incident.cause in CONTINUITY:
            self._unseen = str(incident)

    def failed(self, error: ReplicatorError) -> None:
        """Following ended with ``error``, which is why the archive is joined again."""
        self.reason = str(error)
        if isinstance(error, (ChangedOutside, DatabaseUnusable)):
            self._open[Cause.CHANGED_OUTSIDE] = Incident(Cause.CHANGED_OUTSIDE, error=error)

    def get(self, cause: Cause) -> Incident | None:
        """The open incident of that cause."""
        return self._open.get(cause)

    @property
    def causes(self) -> frozenset[Cause]:
        return frozenset(self._open)

    def joining(self) -> None:
        """A join begins; it sees every incident that is open now."""
        self._unseen = ""

    @property
    def unseen(self) -> str:
        """Why the last join has to be repeated, "" if it does not."""
        return self._unseen

    def settle(self, *causes: Cause) -> None:
        """Close the incidents of these causes."""
        for cause in causes:
            self._open.pop(cause, None)


class StoreFailures:
    """Reports failures of the store that are repeated; logs each wording once."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._logged = ""

    def report(self, error: StoreUnavailable) -> None:
        if str(error) != self._logged:
            log.warning("%s; trying again", error)
            self._logged = str(error)
        self._mailbox.report(Incident(Cause.STORE_FAILED, error=error))
