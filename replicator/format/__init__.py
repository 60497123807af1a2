"""Bytes to values and back: WAL frames, segments, snapshots, checksums. Pure; no I/O."""
