"""The name of the library's replicator.

Owns: which class that is. Refuses: everything else.
"""

from replicator.engine.in_process import InProcessReplicator as SqliteReplicator

__all__ = ["SqliteReplicator"]
