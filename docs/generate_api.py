"""Writes docs/reference-api.md from the docstrings of the public names; a test compares the two.

python docs/generate_api.py

Reads the source and imports nothing, so no framework has to be installed.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).parents[1]
PAGE = Path(__file__).with_name("reference-api.md")
# Each module whose ``__all__`` is public, and a sentence about the use of it.
MODULES = {
    "replicator": "The library. [The guide](library.md) explains it.",
    "replicator.app": "The connection kit.",
    "replicator.app.aio": "The same for asyncio.",
    "replicator.app.state": "The state, from any process.",
    "replicator.contrib.django": "See [the guide](guide/django.md).",
    "replicator.contrib.starlette": "FastAPI too. See [the guide](guide/fastapi.md).",
    "replicator.contrib.flask": "See [the guide](guide/flask.md).",
    "replicator.contrib.sqlalchemy": "See [the guide](guide/sqlalchemy.md).",
    "replicator.contrib.pytest_plugin": "See [the guide](guide/pytest.md).",
}
NOT_FOR_USERS = {"at_exit", "after_fork", "before_fork"}  # called by Python itself
EXAMPLE = re.compile(r"^(>>>.*(?:\n(?!\n).*)*)", re.MULTILINE)  # up to an empty line
HEAD = """\
# API reference

Written by `docs/generate_api.py` from the docstrings. Times are seconds and sizes are bytes unless
a name has another unit. Every error is a `ReplicatorError`; [exit codes and errors](exit-codes.md)
lists the classes. `SqliteReplicatorConfig` takes the settings of
[the configuration](configuration.md) by name. Names that are not on this page are internal and may
change.

The examples run as tests: `config` is that of `app.db`, which has the table `t (x)`, `connection`
one to it, and `url` its bucket, which has a backup of it.
"""


@dataclass(frozen=True)
class Found:
    """A definition: the module that has it, and its syntax tree."""

    module: str
    node: ast.stmt

    @property
    def doc(self) -> str:
        """The docstring, or the string after an assignment."""
        if isinstance(self.node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            return ast.get_docstring(self.node) or ""
        body = tree(self.module).body
        match body[body.index(self.node) + 1 : body.index(self.node) + 2]:
            case [ast.Expr(value=ast.Constant(value=str(text)))]:
                return inspect.cleandoc(text)
        return ""


_trees: dict[str, ast.Module] = {}


def tree(module: str) -> ast.Module:
    """The syntax tree of a module."""
    if module not in _trees:
        path = TOP.joinpath(*module.split("."))
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        _trees[module] = ast.parse(source.read_text(encoding="utf-8"))
    return _trees[module]


def public_names(module: str) -> list[str]:
    """The ``__all__`` of a module."""
    for node in tree(module).body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                return [name for name in ast.literal_eval(value) if name != "__version__"]
    raise LookupError(f"{module} has no __all__")


def find(module: str, name: str) -> Found:
    """The definition of a name, through the imports that only the type checker reads too."""
    for node in ast.walk(tree(module)):
        match node:
            case ast.ImportFrom(module=str(source), names=names):
                for each in names:
                    if (each.asname or each.name) == name:
                        return find(source, each.name)
    for node in tree(module).body:
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef() if node.name == name:
                return Found(module, node)
            case ast.Assign(targets=[ast.Name(id=target)]) if target == name:
                return Found(module, node)
            case ast.AnnAssign(target=ast.Name(id=target)) if target == name:
                return Found(module, node)
    raise LookupError(f"{module} does not define {name}")


def members(found: Found) -> dict[str, Found]:
    """The public methods and properties of a class, and those of its bases in this package."""
    assert isinstance(found.node, ast.ClassDef)
    own = {}
    for node in found.node.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            setter = any(ast.unparse(each).endswith(".setter") for each in node.decorator_list)
            if not node.name.startswith("_") and node.name not in NOT_FOR_USERS and not setter:
                own[node.name] = Found(found.module, node)
    for base in found.node.bases:
        try:
            parent = find(found.module, ast.unparse(base).split("[")[0])
        except (LookupError, OSError):
            continue  # a class of another package
        inherited = members(parent)
        own = inherited | {
            name: each for name, each in own.items() if each.doc or name not in inherited
        }
    return own


def signature(node: ast.stmt, name: str) -> str:
    """A call as a reader writes it; the name alone for a property or a value."""
    if isinstance(node, ast.ClassDef):
        for each in node.body:
            if isinstance(each, ast.FunctionDef) and each.name == "__init__":
                return signature(each, name).removesuffix(" -> None")
        return name
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return name
    decorators = {ast.unparse(each).split("(")[0] for each in node.decorator_list}
    if decorators & {"property", "pytest.fixture", "cached_property"}:
        return name
    arguments = ast.parse(ast.unparse(node)).body[0].args  # type: ignore[attr-defined]
    for group in (arguments.posonlyargs, arguments.args):
        group[:] = [each for each in group if each.arg not in ("self", "cls")]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    waits = "await " if isinstance(node, ast.AsyncFunctionDef) else ""
    return f"{waits}{name}({ast.unparse(arguments)}){returns}"


def fields(found: Found) -> Iterator[tuple[str, str]]:
    """(name, type) of each public field of a dataclass; none for the settings."""
    node = found.node
    if not isinstance(node, ast.ClassDef) or node.name == "SqliteReplicatorConfig":
        return
    for each in node.body:
        match each:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=kind):
                if not name.startswith("_") and "ClassVar" not in ast.unparse(kind):
                    yield name, ast.unparse(kind)


def prose(doc: str) -> str:
    """A docstring as Markdown: roles and literals become code, examples become blocks."""
    text = re.sub(r":\w+:`\.?~?([^`]+)`", r"`\1`", doc.replace("``", "`"))
    return EXAMPLE.sub(r"```python\n\1\n```", text).strip()


def entry(module: str, name: str) -> Iterator[str]:
    """The lines of one public name."""
    found = find(module, name)
    yield f"### `{name}`\n"
    call = signature(found.node, name)
    if call != name:
        yield f"    {call}\n"
    if found.doc:
        yield f"{prose(found.doc)}\n"
    rows = [f"`{each}: {kind}`" for each, kind in fields(found)]
    if rows:
        yield f"Fields: {', '.join(rows)}.\n"
    if isinstance(found.node, ast.ClassDef):
        for each, member in members(found).items():
            yield f"#### `{name}.{each}`\n"
            yield f"    {signature(member.node, each)}\n"
            yield f"{prose(member.doc)}\n"


def render() -> str:
    """The page."""
    parts = [HEAD]
    shown: dict[Found, str] = {}
    for module, about in MODULES.items():
        parts += [f"## `{module}`\n", f"{about}\n"]
        for name in public_names(module):
            first = shown.setdefault(find(module, name), module)
            parts += (
                entry(module, name) if first == module else [f"`{name}` is that of `{first}`.\n"]
            )
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
