"""The systems that are measured, each behind the interface of :mod:`.base`."""
