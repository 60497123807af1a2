"""The library's handle on a sidecar process."""
