"""The database engine of a restore point."""
