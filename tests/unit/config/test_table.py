"""One line adds a setting: to the parser, the checks, the environment, the command line, the file,
the schema and the documentation."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[3]
LINE = (
    '    upload_pause: float = setting(5.0, DURATION, TIMING, "pause between uploads", '
    "least=1, most=60)\n"
)
BEFORE = "    poll_interval: float"


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Runs code with a copy of the project that has one setting more."""
    copy = tmp_path_factory.mktemp("copy")
    for folder in ("replicator", "docs"):
        shutil.copytree(TOP / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    table = copy / "replicator" / "config" / "settings.py"
    source = table.read_text()
    assert source.count(BEFORE) == 1
    table.write_text(source.replace(BEFORE, LINE + BEFORE))

    def run(*arguments, **variables):
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
        environment = inherited | {"PYTHONPATH": str(copy), "COLUMNS": "200"} | variables
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout, done.stderr

    run.copy = copy
    return run


def test_it_has_a_field_a_parser_and_bounds(python):
    """The field is typed and has its default; text is a duration; the bounds hold."""
    out, err = python(
        "-c",
        "from replicator import SqliteReplicatorConfig as C, ReplicatorError\n"
        "from replicator.config.settings import SETTINGS\n"
        "print(C(db_path='x', bucket='b').upload_pause)\n"
        "print(SETTINGS['upload_pause'].read('1m'))\n"
        "try: C(db_path='x', bucket='b', upload_pause=61)\n"
        "except ReplicatorError as error: print(error, error.setting)\n",
    )
    assert out.splitlines() == [
        "5.0",
        "60.0",
        "upload_pause: 61 is out of bounds; it must be from 1s to 1m upload_pause",
    ], err


def test_it_has_a_variable(python):
    """With an error that names it."""
    code = (
        "from replicator import SqliteReplicatorConfig as C, ReplicatorError\n"
        "try: print(C.from_env().upload_pause)\n"
        "except ReplicatorError as error: print(error)\n"
    )
    given = {"REPLICATOR_DB_PATH": "x", "REPLICATOR_BUCKET": "b"}
    assert python("-c", code, **given, REPLICATOR_UPLOAD_PAUSE="9s")[0] == "9.0\n"
    out, _ = python("-c", code, **given, REPLICATOR_UPLOAD_PAUSE="soon")
    assert out.startswith("REPLICATOR_UPLOAD_PAUSE: 'soon' is not a duration")


def test_it_has_an_option(python):
    """With help, default, variable, parser and bounds."""
    out, _ = python("-m", "replicator", "run", "--help")
    words = " ".join(out.replace("│", " ").split())
    assert "--upload-pause TIME" in words
    assert "pause between uploads; default: 5s" in words
    assert "REPLICATOR_UPLOAD_PAUSE" in words
    run = ("-m", "replicator", "run", "x.db", "--bucket", "b", "--upload-pause")
    _, err = python(*run, "2m")
    assert "'--upload-pause'" in err
    assert "120.0 is out of bounds; it must be from 1s to 1m" in err


def test_it_has_a_key_in_the_file(python):
    """At the top and in an entry; text and number."""
    (python.copy / "r.toml").write_text(
        'bucket = "b"\nupload_pause = "30s"\n'
        '[[database]]\npath = "a.db"\n[[database]]\npath = "b.db"\nupload_pause = 2\n'
    )
    out, err = python(
        "-c",
        "from replicator.config.file import ConfigFile\n"
        "print([each.upload_pause for each in ConfigFile.load('r.toml').configs()])",
    )
    assert out == "[30.0, 2]\n", err


def test_it_is_in_the_schema(python):
    """For the top of the file and for an entry."""
    document = json.loads(python("-m", "replicator.config.schema")[0])
    top = document["properties"]
    number, text = top["upload_pause"]["anyOf"]
    assert number == {"type": "number", "minimum": 1, "maximum": 60}
    assert text["type"] == "string"
    assert top["database"]["items"]["properties"]["upload_pause"] == top["upload_pause"]


def test_it_is_in_the_documentation(python):
    """In the page of settings and in that of the command line."""
    assert python(str(python.copy / "docs" / "generate_cli.py")) == ("", "")
    assert (
        "| `upload_pause` | `--upload-pause` | `REPLICATOR_UPLOAD_PAUSE` | 5s | "
        "pause between uploads; from 1s to 1m |"
    ) in (python.copy / "docs" / "configuration.md").read_text()
    assert (
        "| `--upload-pause TIME` | `REPLICATOR_UPLOAD_PAUSE` | pause between uploads; default: 5s |"
    ) in (python.copy / "docs" / "cli.md").read_text()
    assert '"upload_pause"' in (python.copy / "docs" / "replicator.schema.json").read_text()
