"""Every end of an application that has a handle: nothing that was committed is missing.

With the store up, the bucket alone has every commit once the sidecar ended. With the store away,
the next start on the machine brings every commit there, also after the sidecar was killed too.
"""

import itertools
import random
import signal

import pytest

from tests.helpers.handles import HandledApplication
from tests.plugins.scoreboard import effort
from tests.programs.application import ENDS

TIMES = effort(12, 500)
ROUND = len(ENDS)  # ends of one database


@pytest.mark.timeout(240 + 20 * TIMES)
def test_no_commit_is_lost_at_the_end_of_an_application(tmp_path, seed, scoreboard):
    """Applications end in every way, with the store up and away, one after the other on the same
    database."""
    choices = random.Random(seed)
    ends = list(itertools.islice(itertools.cycle(sorted(ENDS)), TIMES))
    choices.shuffle(ends)
    acknowledged = lost = away_ends = 0
    for first in range(0, TIMES, ROUND):
        directory = tmp_path / f"{first}"
        directory.mkdir()
        handled = HandledApplication(directory)
        handled.run("stops", commits=1)
        for end in ends[first : first + ROUND]:
            away = choices.random() < 0.4
            away_ends += away
            if away:
                number = choices.choice([signal.SIGTERM, signal.SIGKILL])
                handled.run_while_away(end, choices.randint(1, 30), number)
                handled.run("stops", commits=0)
            else:
                handled.run(end, commits=choices.randint(1, 30))
            handled.wait_end()
            lost += len(handled.lost())
        acknowledged += len(handled.acknowledged())
    assert lost == 0
    scoreboard(
        "ends of an application with a handle",
        f"{TIMES} ends of {ROUND} kinds, {away_ends} with the store away, "
        f"{acknowledged} acknowledged commits, {lost} lost",
    )
