"""Tests pass limits and seams in; they rarely replace an attribute of the package."""

import ast

from tests.helpers.source import TESTS, modules

MOST_PATCHES = 20


def own_names(tree):
    """The names that a module imports from the package."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "replicator":
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {
                alias.asname or "replicator"
                for alias in node.names
                if alias.name.split(".")[0] == "replicator"
            }
    return found


def is_ours(node, names):
    """True if an expression is a name of the package, an attribute of one, or its path as text."""
    match node:
        case ast.Constant(value=str(text)):
            return text.startswith("replicator.")
        case ast.Attribute(value=value):
            return is_ours(value, names)
        case ast.Name(id=name):
            return name in names
    return False


def patches(tree):
    """The lines of a module that replace an attribute of our own modules or classes."""
    names = own_names(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="setattr"), args=[target, *_]):
                if is_ours(target, names):
                    yield node.lineno
            case ast.Assign(targets=targets):
                if any(
                    isinstance(each, ast.Attribute) and is_ours(each, names) for each in targets
                ):
                    yield node.lineno


def test_few_patches_of_our_own_modules():
    """At most twenty lines of the suite replace an attribute of the package; limits are passed."""
    found = [
        f"{path.relative_to(TESTS)}:{line}"
        for path, tree in modules(TESTS)
        for line in patches(tree)
    ]
    assert len(found) <= MOST_PATCHES, f"{len(found)} patches: {found}"
