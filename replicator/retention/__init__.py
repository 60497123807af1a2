"""Retention: the rules, merges, and deletions."""
