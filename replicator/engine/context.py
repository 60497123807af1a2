"""The resources and numbers of one replicator, handed to each part of the engine.

Owns: nothing; the front door makes the resources, and closes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from replicator.archive.keys import Keys
from replicator.cache.cache import Cache
from replicator.capture.segmenter import Author
from replicator.engine.limits import Limits
from replicator.metrics import Metrics
from replicator.recovery.start import PLAIN_RUN, Asked
from replicator.store.address import StoreAddress
from replicator.store.base import Store
from replicator.system.files import Files
from replicator.system.mailbox import Mailbox
from replicator.upload.store_check import require_conditional_put


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """``patient`` is ``store`` with retries, for requests that a caller waits for."""

    database: Path  # resolved when the replicator was made; for its name
    source: Path  # as it was given; resolved at each look
    address: StoreAddress
    limits: Limits
    author: Author
    store: Store
    patient: Store
    keys: Keys
    cache: Cache
    mailbox: Mailbox
    metrics: Metrics
    files: Files
    allow_unsafe_store: bool
    asked: Asked = PLAIN_RUN

    def check_store(self, *, anew: bool = False) -> None:
        """``StoreUnsafe`` if the store lets two writers create one object. ``anew``: ask it again
        although the answer is remembered."""
        require_conditional_put(
            self.address,
            self.store,
            self.patient,
            self.cache,
            allow_unsafe=self.allow_unsafe_store,
            anew=anew,
        )
