"""Cache to archive, in order: one append at a time, fenced against other writers."""
