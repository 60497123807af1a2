"""Proof that the archive restores: verify, drill, and the monitor inside a replicator."""
