"""The note that names the cache of a database whose path led elsewhere before."""

import os

import pytest

from replicator.system.cache_place import NOTE, cache_of, note_cache
from replicator.system.directory import working_directory
from replicator.system.paths import cache_directory
from tests.helpers.users import OTHER, needs_root


@pytest.fixture
def noted(tmp_path):
    """(the database with a note, the cache that it names)."""
    database, cache = tmp_path / "app.db", tmp_path / "other"
    cache.mkdir()
    (cache / "state.db").touch()
    with working_directory(cache_directory(database)) as held:
        note_cache(held, cache)
    return database, cache


def test_the_note_names_the_cache(noted):
    """As long as there is a cache."""
    database, cache = noted
    assert cache_of(database) == cache
    (cache / "state.db").unlink()
    assert cache_of(database) == cache_directory(database)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cache": 1}', '{"cache": "other"}', "[" * 9000])
def test_a_note_without_a_path_counts_as_none(noted, text):
    """The database's own directory is the cache then."""
    database, _ = noted
    (cache_directory(database) / NOTE).write_text(text)
    assert cache_of(database) == cache_directory(database)


@needs_root
@pytest.mark.parametrize("make", ["his file", "his link"])
def test_a_note_of_another_user_counts_as_none(noted, make):
    """It would lead this process to a cache of his choice."""
    database, _ = noted
    note = cache_directory(database) / NOTE
    if make == "his link":
        note.rename(note.with_name("elsewhere"))
        note.symlink_to("elsewhere")
    os.lchown(note, OTHER, OTHER)
    assert cache_of(database) == cache_directory(database)
