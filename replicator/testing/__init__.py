"""Tools for tests and for the demo: a real S3 server, and stores that fail by script.

Owns the tools of the tests. Refuses to depend on pytest or the CLI; no replicator uses it.
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
from replicator.testing.recording import RecordedCall, RecordingStore, Write
from replicator.testing.seaweed import SeaweedServer, find_weed

__all__ = [
    "FaultyStore",
    "Hang",
    "RecordedCall",
    "RecordingStore",
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
