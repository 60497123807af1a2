"""``python -m replicator`` is ``replicator``."""

from replicator.cli import main

if __name__ == "__main__":
    main()
