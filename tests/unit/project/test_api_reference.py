"""The public surface: each name can be imported, is described, and is in the reference."""

import contextlib
import doctest
import importlib
import importlib.resources
import sqlite3

import pytest

import replicator
from replicator import SqliteReplicator, SqliteReplicatorConfig
from tests.helpers.docs import TOP
from tests.helpers.source import script

api = script(TOP / "docs/generate_api.py")
FRAMEWORKS = {"replicator.contrib.sqlalchemy"}  # `make test` does not install theirs
NAMES = [(module, name) for module in api.MODULES for name in api.public_names(module)]
IMPORTABLE = [(module, name) for module, name in NAMES if module not in FRAMEWORKS]


def described():
    """(name, definition) of each public function, class and method."""
    each_once = {api.find(module, name): (module, name) for module, name in reversed(NAMES)}
    for found, (module, name) in each_once.items():
        yield f"{module}.{name}", found
        if hasattr(found.node, "bases"):
            for each, member in api.members(found).items():
                yield f"{module}.{name}.{each}", member


def test_the_reference_is_that_of_the_code():
    """docs/reference-api.md is what docs/generate_api.py makes of the docstrings: `make docs`."""
    assert api.PAGE.read_text() == api.render()


def test_the_package_is_typed():
    """A type checker of an application reads the annotations."""
    assert importlib.resources.files(replicator).joinpath("py.typed").is_file()


@pytest.mark.parametrize(("module", "name"), IMPORTABLE)
def test_each_public_name_can_be_imported(module, name):
    """The definition that the reference shows is that of the name."""
    value = getattr(importlib.import_module(module), name)
    if not isinstance(value, type) or not hasattr(value, "__module__"):
        return
    found = api.find(module, name)
    assert (value.__module__, value.__name__) == (found.module, found.node.name)


def test_each_public_name_is_described():
    """Classes, functions, methods, properties and values."""
    assert [name for name, found in described() if not found.doc] == []


def test_each_timeout_has_its_unit():
    """In seconds, or as that of another name."""
    assert [
        name
        for name, found in described()
        if "timeout" in api.signature(found.node, name).partition("(")[2]
        and not any(word in found.doc for word in ("second", "As :", "as :", "as for :"))
    ] == []


def test_a_public_class_of_a_module_is_in_its_list():
    """An integration has no public class that the reference leaves out."""
    missing = []
    for module in api.MODULES:
        if module.startswith("replicator.contrib.") and "django" not in module:
            classes = {
                node.name for node in api.tree(module).body if type(node).__name__ == "ClassDef"
            }
            missing += [
                name for name in classes - {*api.public_names(module)} if not name.startswith("_")
            ]
    assert missing == []


EXAMPLES = [(name, found.doc) for name, found in described() if ">>>" in found.doc]


@pytest.fixture(scope="module")
def example_place(tmp_path_factory):
    """A directory with a database, and a bucket that has a backup of it."""
    place = tmp_path_factory.mktemp("examples")
    (place / "bucket").mkdir()
    config = SqliteReplicatorConfig(
        db_path=place / "app.db", url=f"file://{place}/bucket", prefix="app.db"
    )
    with contextlib.closing(sqlite3.connect(place / "app.db")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (x)")
        with SqliteReplicator(config) as handle:
            handle.flush(60)
        yield place, {"config": config, "connection": connection, "url": f"file://{place}/bucket"}


def test_the_main_names_have_an_example():
    """Those that most applications begin with."""
    names = {name.rpartition(".")[2] for name, _ in EXAMPLES}
    assert {"SqliteReplicator", "SqliteReplicatorConfig", "restore", "durable"} <= names
    assert {"Database", "status_of", "ReplicatorError"} <= names


@pytest.mark.parametrize(("name", "doc"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_each_example_gives_what_it_shows(name, doc, example_place, monkeypatch):
    """As it is written, with the names that the head of the reference gives."""
    place, given = example_place
    monkeypatch.chdir(place)
    public = {
        public: getattr(importlib.import_module(module), public)
        for module, public in IMPORTABLE
        if module in ("replicator", "replicator.app", "replicator.app.state")
    }
    test = doctest.DocTestParser().get_doctest(doc, public | given, name, None, 0)
    seen = []
    runner = doctest.DocTestRunner(verbose=False)
    assert runner.run(test, out=seen.append).failed == 0, "".join(seen)
