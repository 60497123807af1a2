"""Settings: one table, its units, and the TOML file of several databases."""
