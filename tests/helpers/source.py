"""Syntax trees of the package and of the tests, for the tests of their structure."""

import ast
import functools
import importlib.util
import sys
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


def script(path):
    """A Python file outside of the package, as a module; for example one of docs/."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # a dataclass looks for it there
    spec.loader.exec_module(module)
    return module
