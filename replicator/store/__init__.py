"""A bucket: one interface, its implementations, and what wraps them (retries, timeouts)."""
