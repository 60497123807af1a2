"""SQLite itself: a live database that is followed, checks, and comparisons of tables."""
