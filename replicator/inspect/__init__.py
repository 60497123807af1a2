"""Read-only reports on an archive: history, transactions, cost, diff, open, doctor."""
