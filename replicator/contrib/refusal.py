"""The answer of a web application to a request whose commit is not durable.

Owns: the document. Refuses: to show the client a path, an address or the text of an error.
"""

from __future__ import annotations

import logging
from typing import Any

from replicator.errors import ReplicatorError

NOT_DURABLE = "the change is stored on this server; do not repeat the request"

log = logging.getLogger(__name__)


def refusal(error: ReplicatorError) -> dict[str, Any]:
    """JSON form, for status code 503. The error goes to the log."""
    log.warning("a request is not durable: %s", error)
    return {"error": "not_durable", "reason": error.code, "detail": NOT_DURABLE}
