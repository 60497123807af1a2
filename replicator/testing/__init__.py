"""Tools for tests and for the demo: a real S3 server, and stores that fail by script.

Needs neither pytest nor the CLI. Nothing here is used by a replicator at work.
"""

from __future__ import annotations

from replicator.testing.seaweed import SeaweedServer, find_weed

__all__ = ["SeaweedServer", "find_weed"]
