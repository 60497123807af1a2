"""The applications of tests/e2e/frameworks: packages are declared, programs are of this Python."""

import ast
import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

from tests.helpers.framework_sites import RELOADING, SITES
from tests.helpers.frameworks import BIN, PROGRAMS, Machine, Site

TOP = Path(__file__).parents[3]
EXTRAS = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["optional-dependencies"]
PACKAGES = {"huey_consumer": "huey"}  # programs whose package has another name


def declared(*extras):
    """The names of the packages in the given extras."""
    return {re.match(r"[\w-]+", each)[0] for extra in extras for each in EXTRAS.get(extra, [])}


def imports_of(path):
    """The first parts of the modules that a program imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                yield from (each.name.split(".")[0] for each in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module.split(".")[0]


def test_every_extra_of_the_makefile_exists():
    """pip only warns about an unknown extra, and installs the rest."""
    named = re.findall(r"'\.\[([\w,]+)\]'", (TOP / "Makefile").read_text())
    assert "test,frameworks" in named
    assert {extra for each in named for extra in each.split(",")} <= EXTRAS.keys()


def test_every_package_of_an_application_is_declared():
    """`make frameworks` installs each package that a program imports or that has its server."""
    files = list(PROGRAMS.rglob("*.py"))
    own = {"replicator"} | {path.stem for path in files} | {path.parent.name for path in files}
    imported = {name for path in files for name in imports_of(path)}
    started = {name for site in [*SITES.values(), *RELOADING.values()] for name in site.programs}
    needed = imported - own - sys.stdlib_module_names
    needed |= {PACKAGES.get(name, name) for name in started - {"python"}}
    assert {"django", "gunicorn", "huey"} <= needed
    assert needed <= declared("test", "frameworks")


def test_a_machine_starts_the_programs_of_this_python(tmp_path):
    """The directory of the Python that runs the tests is the first on the PATH of a machine."""
    machine = Machine(tmp_path, Site("apsw_shop", "python x", prepare="python y"), "around", {})
    path = machine.environment["PATH"]
    assert [shutil.which(name, path=path) for name in ("python", "replicator")] == [
        str(BIN / "python"),
        str(BIN / "replicator"),
    ]


def test_a_machine_refuses_a_program_of_another_python(tmp_path):
    """A server that only the system has, here `sh`, would run with other packages."""
    assert shutil.which("sh")
    with pytest.raises(AssertionError, match=r"\['sh'\] not in "):
        Machine(tmp_path, Site("apsw_shop", "python x", replicated="sh y"), "around", {})
