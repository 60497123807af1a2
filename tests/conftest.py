"""Loads the plugins; each file in ``tests/plugins/`` holds the fixtures of one subject."""

import os
from pathlib import Path

from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[1]
os.environ["PYTHONPATH"] = str(ROOT)  # programs that tests start import this checkout

pytest_plugins = [
    "tests.plugins.environment",
    "tests.plugins.measurement",
    "tests.plugins.seams",
    "tests.plugins.scoreboard",
    "tests.plugins.store",
    "tests.plugins.proxy",
    "tests.plugins.application",
    "tests.plugins.archive",
    "tests.plugins.command_line",
    "tests.plugins.deployment",
    "tests.plugins.django_project",
    "tests.plugins.strace",
]

# A property test fails because of the examples it finds, never because a busy machine is slow.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
