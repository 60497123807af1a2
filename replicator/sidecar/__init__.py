"""The sidecar process: its databases, their control sockets, and the command it runs."""
