"""Facts of the machine that an integration of a framework checks before it replicates.

Owns nothing: it gives them a public name.
"""

from __future__ import annotations

import os
from pathlib import Path

from replicator.system.host import MOUNTS, file_system

__all__ = ["MOUNTS", "network_file_system"]


def network_file_system(path: str | os.PathLike[str], mounts: Path = MOUNTS) -> str:
    """The type of the network file system that holds ``path``, on which WAL mode does not work;
    empty on a local disk. ``mounts`` is the mount table of the kernel."""
    found = file_system(Path(path), mounts)
    return found.kind if found.is_network else ""
