"""The machine: files, locks, file events, processes, the scheduler, the clock."""
