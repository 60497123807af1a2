"""A database that is not what it was: pins its newest captured state before the archive continues.

A file that lost half of its pages or all of its tables, another file in its place, or most pages
with another content: each may be a mistake. The archive continues with it, and the state before
stays restorable with one command, because retention never deletes a pinned transaction.

Owns: the pin, and the report of it. Refuses: to stop a start.
"""

from __future__ import annotations

import contextlib
import logging

from replicator.archive.index import PinnedPoint
from replicator.archive.pins import keep_pinned, list_pins, unpin_plain
from replicator.engine.context import Context
from replicator.errors import AccessDenied, ReplicatorError
from replicator.model import Cause, DatabaseState, Incident
from replicator.sqlite.live import Content, LiveDatabase

SHARE = 2  # fewer than one page in two is left
AUTOMATIC = "automatic: "  # begins the note of such a pin
KEPT = 3  # newest ones; a deployment that replaces its database every day would keep every state

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
    context.metrics.add("shrunk_starts")
    _report(context, Cause.SOURCE_SHRANK, reason, txid, "database_shrank")
    return reason


def pin_replaced(context: Context, txid: int, reason: str) -> None:
    """Pins ``txid``, after which another content took the database's place for ``reason``. Raises
    as :func:`pin_before` does."""
    pin_state(context, txid, reason)
    context.metrics.add("replaced_databases")
    _report(context, Cause.SOURCE_REPLACED, reason, txid, "database_replaced")


def pin_state(context: Context, txid: int, reason: str) -> None:
    """Pins a transaction. A store that refuses it is reported."""
    try:
        keep_pinned(context.patient, context.keys, PinnedPoint(txid, AUTOMATIC + reason))
    except AccessDenied as error:
        log.error("transaction %d could not be pinned: %s", txid, error)
        return
    with contextlib.suppress(ReplicatorError):  # the next one removes them
        _unpin_old(context)


def _unpin_old(context: Context) -> None:
    """A pin that a user gave a name to is his."""
    points = list_pins(context.store, context.keys)
    named = {point.txid for point in points if point.name}
    own = {point.txid for point in points if point.note.startswith(AUTOMATIC)} - named
    for txid in sorted(own)[:-KEPT]:
        unpin_plain(context.store, context.keys, txid)


def _report(context: Context, cause: Cause, reason: str, txid: int, code: str) -> None:
    error = ReplicatorError(
        f"{reason}; transaction {txid} is pinned",
        hint=f"the state before: replicator restore --txid {txid}",
        code=code,
    )
    log.warning("%s; %s", error, error.hint)
    context.mailbox.report(Incident(cause, error=error))
