"""Only archive/ lists a bucket, as only archive/ parses a key (see the import contracts)."""

import ast
from pathlib import Path

import replicator

PACKAGE = Path(replicator.__file__).parent
HOMES = {
    "archive": "the room that owns every listing of an archive",
    "store": "the stores themselves, their wrappers, and the probe that tries a store",
    "testing": "stores that record or fail what they are asked",
}
LISTING = {"list", "folders"}


def listings(source: str) -> list[str]:
    """The calls that list a store, as source text."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in LISTING
    ]


def test_only_archive_lists_a_bucket():
    """Everybody else asks :mod:`replicator.archive.listing`, or another module of that room."""
    found = {
        str(path.relative_to(PACKAGE)): calls
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0] not in HOMES and (calls := listings(path.read_text()))
    }
    assert found == {}


def test_a_listing_would_be_noticed():
    """The test above can fail, and ``list`` the type is none."""
    assert listings("for info in self._store.list(prefix, start_after=key): ...") == [
        "self._store.list(prefix, start_after=key)"
    ]
    assert listings("patient.folders('')") == ["patient.folders('')"]
    assert listings("list(values); found: list[int] = []") == []
    assert all((PACKAGE / home).is_dir() for home in HOMES)
