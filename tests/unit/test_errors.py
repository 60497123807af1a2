"""replicator.errors: classes, codes, exit codes and values, which programs rely on."""

import copy
import importlib
import inspect
import itertools
import json
import pickle
import re
from pathlib import Path

import pytest

import replicator
from replicator import errors
from replicator.errors import (
    DamageError,
    GapError,
    LocalIOError,
    NewerFormat,
    ReplicatorError,
    Unreadable,
    from_dict,
)
from replicator.recovery.start import (
    Act,
    Archive,
    Asked,
    Command,
    Expect,
    Local,
    Order,
    decide_start,
)

DOCS = Path(__file__).parents[2] / "docs" / "exit-codes.md"
SAMPLES = {
    "errno": 28,
    "pid": 4711,
    "txid": 7,
    "durable_txid": 6,
    "first_missing": 8,
    "last_missing": 9,
    "restorable": (1, 7),
    "pending_bytes": 2048,
    "limit_bytes": 1024,
    "capacity": 10,
}


def public_errors() -> list[type[ReplicatorError]]:
    return [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, ReplicatorError)
    ]


def all_errors() -> list[type[ReplicatorError]]:
    """Those of replicator.errors, and those that stay within one room; an integration has none, and
    needs its framework to be imported."""
    top = Path(replicator.__path__[0])
    for path in top.rglob("*.py"):
        parts = path.relative_to(top).with_suffix("").parts
        if parts[0] != "contrib" and parts[-1] not in ("__main__", "__init__"):
            importlib.import_module(".".join(("replicator", *parts)))
    found, todo = [], [ReplicatorError]
    while todo:
        found.append(todo.pop())
        todo += found[-1].__subclasses__()
    return [each for each in found if each.__module__.startswith("replicator.")]


def sample(kind: type[ReplicatorError]) -> ReplicatorError:
    """An instance with a value for each attribute that the class declares."""
    values = {name: SAMPLES.get(name, f"some {name}") for name in kind.value_names()}
    return kind("it went wrong", hint="do this", code="refined", **values)


def same(one: ReplicatorError, other: ReplicatorError) -> bool:
    return (type(one), str(one), vars(one)) == (type(other), str(other), vars(other))


def documented(text: str) -> dict[str, tuple[str, str]]:
    """Class: (exit code, code), from the tree of the docstring."""
    return {name: (exit_code, code) for name, exit_code, code in re.findall(
        r"(\w+) +(\d+) +([a-z_]+) {2,}\S", text
    )}  # fmt: skip


def test_every_class_has_a_code_of_its_own():
    """snake_case, defined by the class itself, and used by no other."""
    codes = [vars(each).get("code") for each in all_errors()]
    assert all(code and re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)
    assert len({*codes}) == len(codes)


def test_the_tree_in_the_docstring_is_the_tree():
    """Each class with its exit code and its code, and none besides."""
    assert documented(errors.__doc__) == {
        each.__name__: (str(each.exit_code), each.code) for each in public_errors()
    }


def test_the_page_on_errors_lists_every_class_with_its_code_and_values():
    """A row of docs/exit-codes.md for each class: class, code, exit code, values."""
    rows = re.findall(
        r"^\| `(\w+)` \| `(\w+)` \| (\d+) \| (.*?) \|", DOCS.read_text(), re.MULTILINE
    )
    assert {name: (code, int(exit_code), tuple(re.findall(r"`(\w+)`", values)))
            for name, code, exit_code, values in rows} == {
        each.__name__: (each.code, each.exit_code, each.value_names()) for each in public_errors()
    }  # fmt: skip


def start_codes():
    """The codes of the table of starts, with their acts."""
    found = {}
    for local, archive, *asked in itertools.product(Local, Archive, Command, Order, Expect):
        outcome = decide_start(local, archive, Asked(*asked))
        found.setdefault(outcome.code, set()).add(outcome.act)
    return found


def test_every_refined_code_is_documented():
    """A code that a raise site gives is in docs/exit-codes.md, and is not the code of a class."""
    sources = [path.read_text() for path in Path(replicator.__path__[0]).rglob("*.py")]
    found = {code for text in sources for code in re.findall(r'\bcode="([^"]+)"', text)}
    found |= {code for code, acts in start_codes().items() if Act.REFUSE in acts} - {"store_denied"}
    found.add("missing_with_history")  # a start that waits reports it in the status
    classes = {each.code for each in all_errors()}
    listed = set(re.findall(r"^\| `(\w+)` \| `\w+` \| [^|\d]+ \|$", DOCS.read_text(), re.MULTILINE))
    quoted = {name for text in sources for name in re.findall(r'"([a-z_]+)"', text)}
    assert found - classes <= listed <= quoted  # some are given by position
    assert not listed & {each.code for each in public_errors()}


@pytest.mark.parametrize("kind", public_errors())
def test_old_and_plain_calls_work(kind):
    """A message is enough; values that are not known are None or empty."""
    error = kind("it went wrong")
    assert str(error) == "it went wrong"
    assert error.code == kind.code
    assert error.hint == kind.default_hint
    assert {getattr(error, name) for name in kind.value_names()} <= {None, ""}


@pytest.mark.parametrize("kind", public_errors())
def test_the_values_are_attributes_and_arguments(kind):
    """The declared values are arguments of the constructor, with message, hint and code."""
    taken = set(inspect.signature(kind).parameters) - {"message", "hint", "code"}
    assert set(kind.value_names()) <= taken
    error = sample(kind)
    assert error.code == "refined"
    assert kind("another").code == kind.code
    assert {name: getattr(error, name) for name in kind.value_names()} == {
        name: SAMPLES.get(name, f"some {name}") for name in kind.value_names()
    }


@pytest.mark.parametrize("kind", public_errors())
def test_errors_survive_pickle_and_copy(kind):
    """Class, message, hint, code and values, as after a trip between processes."""
    error = sample(kind)
    for other in (
        pickle.loads(pickle.dumps(error)),
        copy.copy(error),
        copy.deepcopy(error),
    ):
        assert same(other, error)


@pytest.mark.parametrize("kind", public_errors())
def test_errors_survive_json(kind):
    """to_dict() and from_dict() undo one another, through JSON."""
    error = sample(kind)
    document = json.loads(json.dumps(error.to_dict()))
    assert (document["kind"], document["exit_code"]) == (kind.__name__, kind.exit_code)
    assert {name: document[name] for name in kind.value_names() if name != "restorable"} == {
        name: getattr(error, name) for name in kind.value_names() if name != "restorable"
    }
    plain = {name: "" for name in vars(error) if name not in {"hint", "code", *kind.value_names()}}
    assert vars(from_dict(document)) | plain == vars(error) | plain


def test_only_known_values_are_in_the_json():
    """An unknown value is left out; zero is a value."""
    known = LocalIOError("cannot read", errno=0).to_dict()
    assert known["errno"] == 0
    assert "path" not in known


def test_an_unknown_kind_is_a_plain_error():
    """The class of a newer program, or of another module, becomes the root of the tree."""
    for kind in ("FromTheFuture", "Mapping", "annotations"):
        error = from_dict({"kind": kind, "error": "odd", "hint": "h", "code": "c", "txid": 1})
        assert type(error) is ReplicatorError
        assert (str(error), error.hint, error.code) == ("odd", "h", "c")


def test_a_path_is_kept_as_text():
    """Any path object is accepted."""
    assert LocalIOError("no", path=Path("/a/b")).path == "/a/b"


def test_a_range_is_a_tuple():
    """JSON has no tuples; the attribute is one all the same."""
    document = json.loads(json.dumps(GapError("no", restorable=(1, 7)).to_dict()))
    error = from_dict(document)
    assert isinstance(error, GapError)
    assert error.restorable == (1, 7)


def test_a_newer_format_is_no_damage():
    """A judgement of the archive catches damage alone, the search for a way around catches both."""
    assert not issubclass(NewerFormat, DamageError)
    assert issubclass(NewerFormat, Unreadable)
    assert issubclass(DamageError, Unreadable)
