"""The process beside an application: its databases, its control socket, its child command."""
