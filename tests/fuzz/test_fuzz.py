"""A short share of the fuzzing: every kept input, and some hundred new ones for each target.

``make fuzz`` runs it for an hour. An input that a target could not bear is in ``corpus/``, and
stays there when the defect is mended.
"""

import pytest

from tests.fuzz.fuzzer import CORPUS, Defect, Fuzzer
from tests.fuzz.targets import TARGETS
from tests.helpers.memory import memory_limit

MOST_DATA = 500 << 20  # beyond what is there, stacks of threads included
SLOW = {"archive": 25, "forged_log": 25}
SHARE = 300
SEED = 12


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_end_in_a_documented_error(name, tmp_path):
    """Seeds, kept inputs and mutations: no other exception, and no memory beyond the limit."""
    fuzzer = Fuzzer(name, SEED)
    with memory_limit(MOST_DATA):
        fuzzer.replay()
        fuzzer.directory = tmp_path / name
        fuzzer.run(SLOW.get(name, SHARE))
    assert fuzzer.inputs >= SLOW.get(name, SHARE)


def test_an_input_that_a_target_cannot_bear_is_kept(tmp_path):
    """The fuzzer itself: an error that is not documented ends it, and leaves the input."""
    fuzzer = Fuzzer("text", SEED, tmp_path)
    fuzzer._target = {}.__getitem__
    with pytest.raises(Defect):
        fuzzer.run(1)
    (kept,) = Fuzzer("text", SEED, tmp_path).kept()
    assert fuzzer.inputs == 1
    fuzzer._target = lambda data: None
    fuzzer._try(kept)


def test_every_directory_of_the_corpus_has_its_target():
    """No input is kept for a target that is gone."""
    assert {path.name for path in CORPUS.iterdir() if path.is_dir()} <= set(TARGETS)
