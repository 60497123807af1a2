"""Tools for tests and for the demo: a real S3 server, and stores that fail by script.

Needs neither pytest nor the CLI. Nothing here is used by a replicator at work.
"""

from __future__ import annotations

from replicator.testing.faulty import (
    FaultyStore,
    Hang,
    answer_lost,
    broken_after,
    corrupted,
    hanging,
    raising,
    truncated,
)
from replicator.testing.recording import RecordingStore, Request, Write
from replicator.testing.seaweed import SeaweedServer, find_weed

__all__ = [
    "FaultyStore",
    "Hang",
    "RecordingStore",
    "Request",
    "SeaweedServer",
    "Write",
    "answer_lost",
    "broken_after",
    "corrupted",
    "find_weed",
    "hanging",
    "raising",
    "truncated",
]
