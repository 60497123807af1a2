"""WAL to segments: read, verify, hold, and encode what was committed."""
