"""The web process of web.py with the replicator of the queue: both processes share a sidecar."""

from replicated import replicator
from web import application

__all__ = ["application", "replicator"]
