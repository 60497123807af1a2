"""A development server that reloads: each change of a source file replaces the process."""

import signal

import pytest

from tests.helpers.framework_sites import RELOADING
from tests.plugins.scoreboard import effort

RELOADS = effort(3, 20)
SOURCE = {"uvicorn": "shop.py", "runserver": "orders/views.py"}


@pytest.mark.frameworks
@pytest.mark.timeout(600)
@pytest.mark.parametrize("form", ["around", "inside"])
@pytest.mark.parametrize("name", RELOADING)
def test_reloads_under_load_lose_nothing(machine_with, scoreboard, name, form):
    """Each reload ends a process that may have the only handle; a restore from the bucket alone has
    every acknowledged order."""
    machine = machine_with(RELOADING[name], form)
    machine.start()
    machine.load(20)
    for number in range(RELOADS):
        with (machine.home / SOURCE[name]).open("a") as file:
            file.write(f"# change {number}\n")
        machine.until_new_worker()
        machine.load(20)
    machine.send(signal.SIGTERM)
    machine.ended()
    machine.check_bucket()
    figure = f"{RELOADS} reloads, {len(machine.acknowledged):,} acknowledged, 0 lost"
    scoreboard(f"{name} --reload, replicator {form}", figure)
