"""Every call to the store × everything that can become of it, through one whole life.

A life without faults tells where the store is called; it is played again for each place and
each fault (see fix_life.py).
"""

import random
from collections import Counter

import pytest

from tests.helpers.store_faults import FOREIGN, RAISED, Fault, hurried, played
from tests.plugins.scoreboard import effort

SAMPLE = effort(2, None)  # places of each fault; None: all of them
PARTS = ("put_part", "copy_part", "list_parts", "complete_upload")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Where the store is called in a life without faults."""
    with hurried():
        yield played(tmp_path_factory.mktemp("life") / "life").places


def sample(places, seed, name):
    return places if SAMPLE is None else random.Random(f"{seed} {name}").sample(places, SAMPLE)


@pytest.mark.timeout(120 + 10 * (SAMPLE or 200))
@pytest.mark.parametrize("name", RAISED)
def test_every_call(tmp_path, places, seed, scoreboard, name):
    """Nothing acknowledged is lost, no wrong bytes pass for a database, somebody is told while
    a fault lasts, and afterwards all of it gets into the bucket."""
    fit = [place for place in places if name != "upload gone" or place.call in PARTS]
    chosen = sample(fit, seed, name)
    outcomes, orphans = Counter(), 0
    for place in chosen:
        life = played(tmp_path / "life", Fault(place, name))
        outcomes += life.outcomes
        orphans += len(life.inner.list_uploads(""))
    told = ", ".join(f"{kind} {count}" for kind, count in sorted(outcomes.items()))
    scoreboard(
        f"every store call x {name}",
        f"{len(chosen)} of {len(fit)} calls, 0 lost, "
        f"0 silent, {orphans} orphans; raised: {told or 'nothing'}",
    )


@pytest.mark.timeout(120 + 10 * (SAMPLE or 20))
def test_every_append_that_comes_too_late(tmp_path, places, seed, scoreboard):
    """Where another writer's object stands at our key, whenever it got there, it stays; nothing
    is appended behind it, and everybody is told who holds the log. What was durable stays so."""
    fit = [
        place
        for place in places
        if place.folder == "wal/"
        and place.step != "take_over"
        and place.call in {"put", "complete_upload"}
    ]
    chosen = sample(fit, seed, "taken")
    for place in chosen:
        life = played(tmp_path / "life", Fault(place, "taken"))
        assert life.fenced.exit_code == 6
        assert "process 7 on elsewhere" in str(life.fenced)
        assert life.inner.get(place.key) == FOREIGN[0]
        assert [info.key for info in life.inner.list("app.db/wal/")][-1] == place.key
    scoreboard(
        "every append x a key that another writer took",
        f"{len(chosen)} of {len(fit)} appends: exit 6 and a name, 0 overwritten",
    )
