"""Fixtures for every test; one file per subject, named ``fix_…``."""

import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))  # tests may import fix_… and oracle modules

pytest_plugins = ["fix_environment", "fix_store", "fix_proxy", "fix_bucket", "fix_command",
                  "fix_live", "fix_scoreboard", "fix_small", "fix_trace"]

# Examples are judged by what they find, never by how long a busy machine takes for them.
settings.register_profile("unhurried", deadline=None,
                          suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
