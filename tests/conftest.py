"""Plugins for every test: one file per subject in ``tests/plugins/`` or ``tests/helpers/``."""

import os
from pathlib import Path

from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[1]
os.environ["PYTHONPATH"] = str(ROOT)  # programs that tests start import this checkout

pytest_plugins = [
    "tests.plugins.environment",
    "tests.plugins.store",
    "tests.helpers.proxy",
    "tests.helpers.bucket",
    "tests.helpers.command",
    "tests.helpers.live",
    "tests.plugins.scoreboard",
    "tests.helpers.small_archive",
    "tests.helpers.trace",
]

# Examples are judged by what they find, never by how long a busy machine takes for them.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
