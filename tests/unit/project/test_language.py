"""The language of docstrings and comments: the subject acts, and one word means one thing."""

from pathlib import Path

import pytest

from tests.helpers.prose import measure

PACKAGE = Path(__file__).parents[3] / "replicator"
# Most per 10 000 words. Of five well-written projects the worst have 0.4, 8, 3, 2, 1 and 3.
MOST = {
    "nobody, somebody, whoever, anybody": 1,
    "tell(s), told, says, said": 6,
    "what is / was / the": 6,
    "beside, stands, lies, meanwhile": 6,
    "go(es) on, let go, by itself, any more": 3,
    "place": 6,
    "indirect sentences, %": 2,
}


@pytest.fixture(scope="module")
def prose():
    """(figures, where each odd word stands) of the whole package."""
    places = []
    return measure([PACKAGE], lambda *place: places.append(place)), places


@pytest.mark.parametrize("kind", MOST)
def test_the_language_is_plain(prose, kind):
    """A figure above its bound names each place."""
    figures, places = prose
    odd = [f"{where}: {text}" for where, what, text in places if kind.startswith(what)]
    assert figures[kind] <= MOST[kind], "\n".join(odd)
