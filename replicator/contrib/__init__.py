"""Integrations of frameworks. Each is an extra of the package, and uses public names only."""
