"""The plan of the package: rooms of bounded size, one name for one class, a map that is true."""

import ast
import re
import tomllib
from collections import Counter
from pathlib import Path

TOP = Path(__file__).parents[3]
PACKAGE = TOP / "replicator"
MOST_LOOSE_FILES = 8
LARGEST_ROOM = 0.12  # of all lines
MOST_PARAMETERS = 12  # a command of the command line may have more: its options


def trees():
    """(path, syntax tree) of each module of the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE), ast.parse(path.read_text())


def parameters(function):
    """How many arguments a call can name, without ``self`` and ``cls``."""
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return len([each for each in every if each.arg not in ("self", "cls")])


def layers():
    """The floors of the contract in pyproject.toml, lowest first, each a set of rooms."""
    contracts = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["importlinter"]
    (rows,) = (each["layers"] for each in contracts["contracts"] if each["type"] == "layers")
    return [set(re.split(r"\s*[|:]\s*", row)) for row in reversed(rows)]


def test_few_files_are_loose():
    """Everything else has a room."""
    loose = [path.name for path in PACKAGE.glob("*.py")]
    assert len(loose) <= MOST_LOOSE_FILES, loose


def test_no_room_is_a_drawer():
    """A room that grows beyond its share is two rooms."""
    lines = Counter()
    for path in PACKAGE.rglob("*.py"):
        lines[path.relative_to(PACKAGE).parts[0]] += len(path.read_text().splitlines())
    room, most = lines.most_common(1)[0]
    assert most <= LARGEST_ROOM * lines.total(), room


def test_each_class_has_a_name_of_its_own():
    """One word, one thing: who catches or imports a class gets the one they mean."""
    names = Counter(
        node.name
        for _, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_no_function_takes_too_many_parameters():
    """Beyond a dozen, some of them are one value."""
    many = [
        f"{path}:{node.lineno} {node.name}"
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and parameters(node) > MOST_PARAMETERS
        if path.parts[0] != "cli"
    ]
    assert many == []


def test_the_map_of_the_rooms_is_the_contract():
    """docs/contributing.md names each room, on the floor that the import contract gives it."""
    page = (TOP / "docs" / "contributing.md").read_text()
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", page, re.MULTILINE)
    floors = [{room for floor, room in rows if int(floor) == number} for number in range(1, 14)]
    assert floors == layers()
