"""config/patterns.py: which part of a path is a pattern, and which files match it."""

import os

import pytest

from replicator.config.file import ConfigFile, Search
from replicator.config.patterns import Pattern


@pytest.mark.parametrize("name", ["app[1].db", "a*.db", "what?.db"])
def test_an_existing_file_of_a_literal_name_is_one_file(tmp_path, name):
    """Its signs are part of its name."""
    assert Pattern.of(str(tmp_path / name)) is not None
    (tmp_path / name).touch()
    assert Pattern.of(str(tmp_path / name)) is None


def test_signs_in_an_existing_directory_are_part_of_its_name(tmp_path):
    """The rest of the path decides, whether the database exists or not."""
    place = tmp_path / "shop [eu]"
    place.mkdir()
    assert Pattern.of(str(place / "later.db")) is None
    (place / "a.db").touch()
    pattern = Pattern.of(str(place / "*.db"))
    assert (pattern.fixed, pattern.rest) == (str(place), "*.db")
    assert pattern.files() == [str(place / "a.db")]


def test_a_file_of_the_literal_name_that_appears_later_is_found(tmp_path):
    """Next to those that match the pattern."""
    pattern = Pattern.of(str(tmp_path / "app[12].db"))
    for name in ("app1.db", "app[12].db", "app3.db", "app1.db-wal"):
        (tmp_path / name).touch()
    assert pattern.files() == [str(tmp_path / name) for name in ("app1.db", "app[12].db")]


@pytest.fixture
def search(tmp_path):
    """Of a file with the pattern ``t/*.db``."""
    (tmp_path / "t").mkdir()
    (tmp_path / "r.toml").write_text('bucket = "b"\n[[database]]\npath = "t/*.db"\n')
    return Search(ConfigFile.load(tmp_path / "r.toml", {}))


@pytest.mark.parametrize("name", [b"a\nb.db", b"a\xff.db", b"a\x1b[2J.db"])
def test_a_name_that_no_key_can_have_hides_no_other_database(search, tmp_path, name):
    """It is a problem for as long as it is there; the next look sees it again if it comes back."""
    odd = os.path.join(os.fsencode(tmp_path / "t"), name)
    for path in (odd, os.fsencode(tmp_path / "t" / "z.db")):
        with open(path, "wb"):
            pass
    found, (error,) = search.look()
    assert [config.database.name for config in found] == ["z.db"]
    assert search.problems == [(odd.decode(errors="backslashreplace"), error)]
    assert search.look() == ([], [])
    assert len(search.problems) == 1
    os.unlink(odd)
    assert search.look() == ([], [])
    assert search.problems == []
    with open(odd, "wb"):
        pass
    assert len(search.look()[1]) == 1


def test_a_pattern_without_a_file_is_a_problem(search, tmp_path):
    """Before the first file, and after its directory vanished; not in between."""
    search.look()
    ((_, error),) = search.problems
    assert error.code == "no_match"
    (tmp_path / "t" / "a.db").touch()
    search.look()
    assert search.problems == []
    (tmp_path / "t").rename(tmp_path / "away")
    search.look()
    ((_, error),) = search.problems
    assert str(tmp_path / "t") in str(error)
