"""Fixtures for every test; one file per subject, named ``fix_…``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # tests may import fix_… and oracle modules

pytest_plugins = ["fix_environment", "fix_store", "fix_proxy", "fix_bucket", "fix_command",
                  "fix_live"]
