"""The structure of the test suite: one definition per fixture, helpers apart."""

import ast
from collections import defaultdict

from tests.helpers.source import TESTS, decorators, functions, modules


def fixture_name(function):
    """The name under which a function is a fixture; None if it is none."""
    for decorator in function.decorator_list:
        call = decorator.func if isinstance(decorator, ast.Call) else decorator
        if ast.unparse(call) == "pytest.fixture":
            keywords = decorator.keywords if isinstance(decorator, ast.Call) else []
            given = [keyword.value.value for keyword in keywords if keyword.arg == "name"]
            return given[0] if given else function.name
    return None


def fixtures():
    """(path, function, fixture name) of each fixture of the suite."""
    for path, tree in modules(TESTS):
        for function in functions(tree):
            if (name := fixture_name(function)) is not None:
                yield path.relative_to(TESTS), function, name


def overrides(path, function):
    """True for a fixture of a conftest.py that gives its reason to override another."""
    return path.name == "conftest.py" and "Overrides" in (ast.get_docstring(function) or "")


def test_each_fixture_is_defined_once():
    """No two fixtures share a name, unless a conftest.py overrides one and gives the reason."""
    found = defaultdict(list)
    for path, function, name in fixtures():
        if not overrides(path, function):
            found[name].append(f"{path}:{function.lineno}")
    assert {name: where for name, where in found.items() if len(where) > 1} == {}


def test_each_fixture_is_described():
    """Every fixture has a docstring."""
    assert [
        f"{path}: {name}" for path, function, name in fixtures() if not ast.get_docstring(function)
    ] == []


def test_helpers_hold_no_fixtures():
    """Fixtures are in plugins, in a conftest.py or in a test module, not in helpers."""
    assert [
        str(path) for path, _, _ in fixtures() if path.parts[0] in ("helpers", "programs")
    ] == []


def test_each_module_and_test_is_described():
    """Every module has a docstring, and every test function names the property it proves."""
    missing = []
    for path, tree in modules(TESTS):
        if not ast.get_docstring(tree):
            missing.append(str(path.relative_to(TESTS)))
        missing += [
            f"{path.relative_to(TESTS)}: {function.name}"
            for function in functions(tree)
            if function.name.startswith("test_") and not ast.get_docstring(function)
        ]
    assert missing == []


def test_marks_are_not_hidden():
    """No test is marked xfail."""
    assert [
        f"{path.relative_to(TESTS)}: {function.name}"
        for path, tree in modules(TESTS)
        for function in functions(tree)
        if any("xfail" in decorator for decorator in decorators(function))
    ] == []
