"""The side of the application: commits that are durable when they return, one queue of writers."""
