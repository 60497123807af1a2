"""The durable local queue: segments on disk, and the ledger that knows how far each one got."""
