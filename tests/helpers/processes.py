"""How tests start Python in processes of their own."""

import sys

# For a program of the standard library: it starts without site-packages, and so without coverage.
STANDARD_PYTHON = (sys.executable, "-S")
