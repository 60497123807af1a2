"""Names of a bucket become paths below one directory, or are refused; none leaves it."""

import os

import pytest

from replicator.errors import TargetExists, UnsafePath
from replicator.recovery.places import collisions, folds_names, refusal, require_below
from replicator.system.files import LOCAL
from tests.helpers.errors import raises

HOSTILE = (
    "../a.db",
    "..",
    ".",
    "a/../../b.db",
    "/etc/passwd",
    "a//b.db",
    "a/",
    "",
    "a\n.db",
    "a\x00.db",
    "\x1b[2Jdb",
    "\u202e.db",
    "\ud800.db",
    "x" * 250,
    "é" * 125,
    "/".join(["d" * 100] * 45),
    ".a.db.restoring",
    ".a.db.restoring/database",
    ".a.db-replicator/state.db",
    "a.db-wal",
    "a.db-shm",
    "t/a.db-journal",
)


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name)[:24])
def test_a_hostile_name_becomes_no_path(tmp_path, name):
    """The reason has a code of its own and can be printed in UTF-8."""
    error = refusal(name, tmp_path)
    assert (error.exit_code, error.code) == (2, "unsafe_name")
    assert f"{error} {error.hint}".encode(errors="surrogateescape")


@pytest.mark.parametrize(
    "name", ["a.db", "tenants/ä b.db", "-rf", "a.db-old", "x-wal/a.db", "x" * 240, ".hidden.db"]
)
def test_other_names_are_their_own_paths(tmp_path, name):
    """What a replicator on an ordinary file makes is not refused."""
    assert refusal(name, tmp_path) is None


@pytest.mark.parametrize(
    ("names", "bad"),
    [
        (["a", "a/b", "c"], {"a", "a/b"}),
        (["a", "a/b", "a/c/d"], {"a", "a/b", "a/c/d"}),
        (["a", "a-wal/b"], {"a", "a-wal/b"}),
        (["t/a", "t/a"], {"t/a"}),
        (["a/b", "a/c", "b"], set()),
        (["A.db", "a.db", "b/x", "B/y"], set()),
    ],
)
def test_databases_in_the_way_of_each_other_are_found(names, bad):
    """All of them, because no rule says which one is meant; others are left alone."""
    found = collisions(names, folded=False)
    assert set(found) == bad
    assert {error.code for error in found.values()} <= {"name_collision"}


def test_names_that_differ_in_case_or_form_count_where_the_file_system_folds_them():
    """A file by case or by Unicode form; two spellings of a directory are one directory."""
    names = ["A.db", "a.db", "\u00e9.db", "e\u0301.db", "T/x", "t/y", "stra\u00dfe", "STRASSE/z"]
    assert set(collisions(names, folded=True)) == set(names) - {"T/x", "t/y"}


def test_the_file_system_is_asked_if_it_folds_names(tmp_path):
    """The answer agrees with a file that the test makes, and nothing is left."""
    (tmp_path / "probe").touch()
    expected = (tmp_path / "PROBE").exists()
    (tmp_path / "probe").unlink()
    assert folds_names(tmp_path, LOCAL) == expected
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("link", ["t", "t/u", "t/u/a.db"])
@pytest.mark.parametrize("dangling", [True, False])
def test_a_link_on_the_way_is_refused(tmp_path, link, dangling):
    """Anywhere below the directory, also one that leads nowhere or back into the directory."""
    into = tmp_path / "into"
    (into / link).parent.mkdir(parents=True)
    (into / link).symlink_to(into / "gone" if dangling else into)
    with raises(UnsafePath, "link_below", path=str(into / link), owner=os.geteuid()):
        require_below(into, into / "t/u/a.db", LOCAL)


def test_a_file_in_place_of_a_directory_is_refused(tmp_path):
    """Before anything is made."""
    (tmp_path / "t").touch()
    with raises(TargetExists, path=str(tmp_path / "t")):
        require_below(tmp_path, tmp_path / "t/u/a.db", LOCAL)


def test_a_directory_that_others_can_exchange_is_refused_above_another_one(tmp_path):
    """For a file directly in it the directory is held, as in a single restore."""
    into = tmp_path / "into"
    (into / "t").mkdir(parents=True)
    into.chmod(0o777)
    require_below(into, into / "a.db", LOCAL)
    with raises(UnsafePath, path=str(into)):
        require_below(into, into / "t/a.db", LOCAL)
    into.chmod(0o1777)
    require_below(into, into / "t/a.db", LOCAL)
