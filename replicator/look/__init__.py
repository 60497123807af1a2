"""Looking at restore points: one of them as a file (point), two of them compared (diff)."""
