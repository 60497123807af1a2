"""Archive to file: plan, fetch, apply, verify, publish. Behind ``replicator restore``."""
