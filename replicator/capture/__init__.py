"""WAL to segments: read, verify, hold, and encode committed frames."""
