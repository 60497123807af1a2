"""A database that shrank since its newest captured state: pins that state before it is replaced.

A file that lost half of its pages or all of its tables may be a new one in the old one's name. The
archive continues with it, and the state before stays restorable with one command, because
retention never deletes a pinned transaction.

Owns: the pin, and the report of it. Refuses: to stop a start.
"""

from __future__ import annotations

import logging

from replicator.archive.index import PinnedPoint
from replicator.archive.records import pin
from replicator.engine.context import Context
from replicator.errors import AccessDenied, ReplicatorError
from replicator.model import Cause, DatabaseState, Incident
from replicator.sqlite.live import Content, LiveDatabase

SHARE = 2  # fewer than one page in two is left

log = logging.getLogger(__name__)


def has_shrunk(content: Content, before: DatabaseState, *, fresh: bool) -> bool:
    """True if the database has less than half of the pages of ``before``, or lost its tables."""
    return fresh or (0 < content.pages * SHARE < before.pages)


def pin_before(
    context: Context, database: LiveDatabase, txid: int, before: DatabaseState, *, fresh: bool
) -> str:
    """Pins ``txid`` if the database shrank since; the reason in words, "" if it did not.

    ``StoreUnavailable`` if the pin cannot be stored yet. A store that refuses it is reported.
    """
    content = database.content()
    if not txid or not has_shrunk(content, before, fresh=fresh):
        return ""
    lost = "it has no table" if fresh else f"{content.pages:,} of {before.pages:,} pages are left"
    reason = f"the database shrank after transaction {txid}: {lost}"
    pin_state(context, txid, reason)
    error = ReplicatorError(
        f"{reason}; transaction {txid} is pinned",
        hint=f"the state before: replicator restore --txid {txid}",
        code="database_shrank",
    )
    log.warning("%s; %s", error, error.hint)
    context.metrics.add("shrunk_starts")
    context.mailbox.report(Incident(Cause.SOURCE_SHRANK, error=error))
    return reason


def pin_state(context: Context, txid: int, reason: str) -> None:
    """Pins a transaction. A store that refuses it is reported."""
    try:
        pin(context.patient, context.keys, PinnedPoint(txid, reason))
    except AccessDenied as error:
        log.error("transaction %d could not be pinned: %s", txid, error)
