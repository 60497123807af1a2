"""Every kind of fault at every call to the store in one scenario.

A run without faults lists the calls; the scenario runs again for each sampled call and fault (see
tests/helpers/store_faults.py).
"""

import random
from collections import Counter

import pytest

from tests.helpers.store_faults import ALLOWED_ERRORS, FOREIGN, Fault, play, small_limits
from tests.plugins.scoreboard import effort

SAMPLE = effort(2, None)  # calls for each fault; None: all of them
PARTS = ("put_part", "copy_part", "list_parts", "complete_upload")


@pytest.fixture(scope="module")
def call_sites(tmp_path_factory):
    """The calls to the store in a scenario without faults."""
    with small_limits():
        yield play(tmp_path_factory.mktemp("scenario") / "scenario").call_sites


def sample(call_sites, seed, name):
    return (
        call_sites if SAMPLE is None else random.Random(f"{seed} {name}").sample(call_sites, SAMPLE)
    )


@pytest.mark.timeout(120 + 10 * (SAMPLE or 200))
@pytest.mark.parametrize("name", ALLOWED_ERRORS)
def test_every_call(tmp_path, call_sites, seed, scoreboard, name):
    """With a fault at any call, no acknowledged transaction is lost, no restore gives wrong bytes,
    the fault is reported while it lasts, and afterwards all data reaches the bucket."""
    fit = [
        call_site for call_site in call_sites if name != "upload gone" or call_site.call in PARTS
    ]
    chosen = sample(fit, seed, name)
    outcomes, orphans = Counter(), 0
    for call_site in chosen:
        scenario = play(tmp_path / "scenario", Fault(call_site, name))
        outcomes += scenario.outcomes
        orphans += len(scenario.inner.list_uploads(""))
    raised = ", ".join(f"{kind} {count}" for kind, count in sorted(outcomes.items()))
    scoreboard(
        f"every store call x {name}",
        f"{len(chosen)} of {len(fit)} calls, 0 lost, "
        f"0 silent, {orphans} orphans; raised: {raised or 'nothing'}",
    )


@pytest.mark.timeout(120 + 10 * (SAMPLE or 20))
def test_every_append_to_a_taken_key(tmp_path, call_sites, seed, scoreboard):
    """An object of another writer at our next key stays, nothing is appended after it, and the
    error names the holder. Durable transactions stay restorable."""
    fit = [
        call_site
        for call_site in call_sites
        if call_site.folder == "wal/"
        and call_site.step != "take_over"
        and call_site.call in {"put", "complete_upload"}
    ]
    chosen = sample(fit, seed, "taken")
    for call_site in chosen:
        scenario = play(tmp_path / "scenario", Fault(call_site, "taken"))
        assert scenario.fenced.exit_code == 6
        assert "process 7 on elsewhere" in str(scenario.fenced)
        assert scenario.inner.get(call_site.key) == FOREIGN[0]
        assert [info.key for info in scenario.inner.list("app.db/wal/")][-1] == call_site.key
    scoreboard(
        "every append x a key that another writer took",
        f"{len(chosen)} of {len(fit)} appends: exit 6 and a name, 0 overwritten",
    )
