"""Syntax trees of the package and of the tests, for the tests of their structure."""

import ast
import functools
from pathlib import Path

TOP = Path(__file__).parents[2]
PACKAGE = TOP / "replicator"
TESTS = TOP / "tests"
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@functools.cache
def modules(directory):
    """(path, syntax tree) of each Python file below ``directory``, in order."""
    return [(path, ast.parse(path.read_text())) for path in sorted(directory.rglob("*.py"))]


def functions(tree):
    """Each function and method of a module."""
    return [node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]


def classes(tree):
    """Each class of a module, also nested ones."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]


def parameters(function):
    """The number of parameters of a function, without ``self`` and ``cls``."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return sum(argument.arg not in ("self", "cls") for argument in named)


def decorators(node):
    """The decorators of a function or class, as text."""
    return [ast.unparse(decorator) for decorator in node.decorator_list]
