"""What is kept: the rules, merges, and deletions."""
