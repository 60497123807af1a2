"""Measures what users pay for, side by side with Litestream; see README.md beside this file."""
