"""README and docs: every command, link, name and example in them is real."""

import configparser
import dataclasses
import importlib.util
import json
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer

import benchmarks.__main__ as benchmarks
import replicator
from replicator.cli import application
from replicator.config.file import ConfigFile
from replicator.retention.merge import MergeSource, merge_all
from replicator.testing import find_weed
from tests.helpers import docs
from tests.helpers.framework_sites import RELOADING, SITES
from tests.helpers.frameworks import PROGRAMS as PROGRAMS_OF_FRAMEWORKS

TOP = docs.TOP
BIN = Path(sys.executable).parent
COMMANDS = typer.main.get_command(application()).commands
OPTIONS = {
    name
    for each in COMMANDS.values()
    for param in each.params
    for name in (*param.opts, *param.secondary_opts)
}
FOREIGN_OPTIONS = {"--help", "--only", "--preload", "--reload", "--strict", "--workers"}
PAGES = docs.pages()
WRITTEN = [page for page in PAGES if docs.name(page) not in docs.GENERATED]
# Programs in shell blocks that are not this project's; each is checked as far as it can be.
PROGRAMS = {
    ".",
    "cd",
    "datasette",
    "docker",
    "export",
    "gunicorn",
    "huey_consumer",
    "kill",
    "ls",
    "mkdir",
    "pip",
    "pytest",
    "python",
    "python3",
    "rm",
    "uvicorn",
    "wait",
}
VARIABLES = {
    "REPLICATOR_DATABASE",  # set by `open` for its command
    "REPLICATOR_COMMAND",  # set by `run` for its command
    "REPLICATOR_CHAOS",  # these two: for the tests
    "REPLICATOR_SEED",
}

by_page = pytest.mark.parametrize("page", PAGES, ids=docs.name)
by_written_page = pytest.mark.parametrize("page", WRITTEN, ids=docs.name)


# --------------------------------------------------------------------------- commands


def parse(words, line):
    """Parse ``replicator …`` as the program does, values included."""
    if words[1].startswith("-"):
        assert words[1:] == ["--version"], line
        return
    assert words[1] in COMMANDS, line
    given = [word.replace("…", "x") for word in words[2:]]
    COMMANDS[words[1]].make_context(words[1], given)  # raises for anything it cannot read


@by_page
def test_every_command_in_a_block_exists(page, monkeypatch):
    """`replicator x --y z` parses with its values, `make z` has a target, the rest is known."""
    targets = re.findall(r"^([a-z]+):", (TOP / "Makefile").read_text(), re.MULTILINE)
    for line, words in docs.commands(page):
        match words:
            case ["replicator", *_]:
                parse(words, line)
            case ["make", target, *given]:
                assert target in targets, line
                for args in given:
                    assert (target, args[:5]) == ("bench", "ARGS="), line
                    monkeypatch.setattr(sys, "argv", ["benchmarks", *shlex.split(args[5:])])
                    benchmarks.parse()
            case ["until", *condition, "do", "sleep", "1;", "done"]:
                parse([word.rstrip(";") for word in condition], line)
            case ["sqlite3", *_]:
                assert len(words) == 3, line
            case ["weed", "mini", *given]:
                known = subprocess.run(
                    [find_weed(), "help", "mini"], capture_output=True, text=True, check=False
                )
                for word in given:
                    assert f"\n  {word.split('=')[0]} " in known.stdout + known.stderr, line
            case [program, *_]:
                assert program in PROGRAMS, line


@by_page
def test_every_command_in_the_text_exists(page):
    """A code span `replicator x --y` or `--y` names a command and options that exist."""
    makefile = (TOP / "Makefile").read_text()
    for code in docs.inline_code(page):
        match code.split():
            case ["replicator", name, *_]:
                assert name in COMMANDS or name == "--version", code
            case ["make", target, *_]:
                assert re.search(rf"^{target}:", makefile, re.MULTILINE), code
        if re.match(r"replicator |--\w", code):
            ours = code.split(" -- ")[0]
            flags = re.findall(r"(?:^| )(--[a-z-]*[a-z])(?=$|[ =,/])", ours)
            assert set(flags) <= OPTIONS | FOREIGN_OPTIONS, code


@by_page
def test_every_variable_exists(page):
    """`REPLICATOR_…` names a setting, an option, or one of the few variables beyond them."""
    options = {param.envvar for each in COMMANDS.values() for param in each.params}
    settings = {f"REPLICATOR_{name.upper()}" for name in settings_names()}
    named = re.findall(r"REPLICATOR_[A-Z_]*[A-Z]", page.read_text())
    assert set(named) <= options | settings | VARIABLES


@by_page
def test_extras_and_modules_exist(page):
    """`pip install '.[x]'` names an extra, `python -m x` a module of the project."""
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    for extra in re.findall(r"pip install '\.\[(\w+)\]'", page.read_text()):
        assert extra in project["optional-dependencies"]
    for module in re.findall(r"python -m (benchmarks[\w.]*|tests[\w.]*)", page.read_text()):
        assert importlib.util.find_spec(module) is not None, module


# ----------------------------------------------------------------------------- blocks


@by_written_page
def test_every_block_has_a_language_that_is_checked(page):
    """A block of an unknown language would escape the tests below."""
    known = {"sh", "console", "bash", "shell", "python", "toml", "ini", "json", "sql"}
    assert {block.language for block in docs.blocks(page)} <= known


@by_written_page
def test_the_examples_in_files_can_be_read(page, tmp_path):
    """TOML is a file of databases, a unit's command parses, JSON and SQL are valid."""
    for block in docs.blocks(page, "toml"):
        (tmp_path / "replicator.toml").write_text(block.text)
        assert ConfigFile.load(tmp_path / "replicator.toml")
    for block in docs.blocks(page, "ini"):
        unit = configparser.ConfigParser(strict=False)
        unit.optionxform = str
        unit.read_string(block.text)
        start = docs.command(unit["Service"]["ExecStart"])
        parse(["replicator", *start[1:]], start)
    for block in docs.blocks(page, "json"):
        json.loads(block.text)
    for block in docs.blocks(page, "sql"):
        sqlite3.connect(":memory:").executescript(block.text)


@by_written_page
def test_python_examples_compile(page):
    """They are run in tests/e2e/test_docs.py, as far as they stand alone."""
    for block in docs.blocks(page, "python"):
        compile(block.text, docs.name(page), "exec")


def test_the_guide_to_frameworks_is_what_the_tests_run():
    """Each Python block is part of a program of tests/programs/frameworks, and each command of a
    server is one by which tests/e2e/frameworks starts such a program, but for its address."""
    page = TOP / "docs/guide/frameworks.md"
    programs = [path.read_text() for path in PROGRAMS_OF_FRAMEWORKS.rglob("*.py")]
    for block in docs.blocks(page, "python"):
        assert any(block.text in program for program in programs), block.text
    known = {line for site in [*SITES.values(), *RELOADING.values()] for line in lines_of(site)}
    for line, words in docs.commands(page):
        command = line.partition(" -- ")[2] if words[0] == "replicator" else line
        if command:
            assert without_address(command) in known, line


def lines_of(site):
    """The commands of a site, and the one with its preparation around which a sidecar runs."""
    given = [site.plain, site.replicated, site.prepare, site.queue, site.replicated_queue]
    return {*map(without_address, given), without_address(shlex.join(site.around("8000")))}


def without_address(command):
    """A command without the options of the address and of the log."""
    return re.sub(r" (-b|--port|--log-level) [^ ']+| \{port\}| 8000$", "", command)


# ------------------------------------------------------------------------------ links


@by_page
def test_every_link_leads_to_a_file_and_a_heading(page):
    """Relative links name files that exist, and anchors name their headings."""
    for path, anchor in docs.links(page):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        if anchor:
            assert anchor in docs.anchors(target), f"{path}#{anchor}"


@by_page
def test_every_file_named_in_the_text_exists(page):
    """A code span with a path of the project names a file or a folder."""
    for code in docs.inline_code(page):
        if re.fullmatch(r"(replicator|tests|benchmarks|docs|examples|minio)/[\w./-]+", code):
            assert (TOP / code).exists(), code


def test_a_broken_anchor_would_be_noticed(tmp_path):
    """The check above can fail, and anchors are those of GitHub."""
    page = tmp_path / "page.md"
    page.write_text("# Fenced (exit code 6)\n## `a` & B\n## Twice\n## Twice\n[x](#nowhere)\n")
    assert list(docs.anchors(page)) == ["fenced-exit-code-6", "a--b", "twice", "twice-1"]
    assert list(docs.links(page)) == [("", "nowhere")]


def test_every_page_is_in_the_index():
    """docs/README.md links every page of docs/."""
    index = TOP / "docs/README.md"
    linked = {(index.parent / path).resolve() for path, _ in docs.links(index)}
    assert {*(TOP / "docs").rglob("*.md")} - {index} <= linked


# ------------------------------------------------------------------- README and prose


def test_the_readme_is_for_a_person_in_a_hurry():
    """At most 700 words, with credentials before the first command that needs them."""
    text = (TOP / "README.md").read_text()
    assert len(text.split()) <= 700
    assert text.index("AWS_ACCESS_KEY_ID=") < text.index("replicator doctor")
    wanted = ["Install", "Usage", "Demo", "Is it for me?", "Limitations", "Testing"]
    assert [each for each in docs.headings(TOP / "README.md") if each in wanted] == wanted
    assert {"make demo", "make test"} <= set(docs.inline_code(TOP / "README.md"))


@by_written_page
def test_sentences_have_a_subject_that_acts(page):
    """No sentence hides its subject behind a question word or an indefinite pronoun."""
    indirect = re.compile(r"(?:What|Whether|Whoever|How|Where|When|Why)\b")
    assert [each for each in docs.sentences(page) if indirect.match(each)] == []
    hidden = re.compile(r"\b(?:nobody|somebody|whoever|anybody)\b", re.IGNORECASE)
    assert hidden.findall(docs.without_blocks(page)) == []


def test_the_changelog_has_the_sections_it_promises():
    """Keep a Changelog: versions, and under each the kinds of change; Unreleased first."""
    text = (TOP / "CHANGELOG.md").read_text()
    assert re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)[0] == "Unreleased"
    kinds = {"Security and corruption", "Added", "Changed", "Deprecated", "Removed", "Fixed"}
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= kinds | {"Performance"}


# -------------------------------------------------------------------------- reference


def generator(name):
    """The script in docs/ that writes a page."""
    spec = importlib.util.spec_from_file_location(name, TOP / f"docs/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_files_are_those_of_the_code():
    """cli.md, the tables of settings, the JSON Schema: run `make docs` after a change."""
    for path, text in generator("generate_cli").pages().items():
        assert path.read_text() == text, path.name


def test_the_table_of_metrics_is_that_of_the_code():
    """docs/metrics.md is what docs/generate_metrics.py makes of it; run `make docs`."""
    page = (TOP / "docs/metrics.md").read_text()
    assert page == generator("generate_metrics").render(page)


def first_cells(page, heading):
    """The code spans in the first column of the table below a heading."""
    section = page.read_text().split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| (`.+?`) \|", section, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`(\w+)`", row)]


def test_the_page_on_metrics_names_every_field_of_the_status():
    """Each once, and no other."""
    fields = [field.name for field in dataclasses.fields(replicator.ReplicationStatus)]
    assert sorted(first_cells(TOP / "docs/metrics.md", "Status")) == sorted(fields)


def test_the_page_on_the_library_names_every_field_of_a_report():
    """Each once, and no other."""
    fields = [field.name for field in dataclasses.fields(replicator.RestoreReport)]
    assert sorted(first_cells(TOP / "docs/library.md", "Restore")) == sorted(fields)


def test_the_page_on_the_library_names_what_is_public():
    """Every public name, and every public method of the replicator but internal ones."""
    spans = " ".join(docs.inline_code(TOP / "docs/library.md"))
    for public in replicator.__all__:
        assert public in spans, public


def settings_names():
    return [
        field.name for field in dataclasses.fields(replicator.SqliteReplicatorConfig) if field.init
    ]


def test_the_page_on_configuration_names_every_setting():
    """Each field of the config, with its variable, is in docs/configuration.md."""
    page = (TOP / "docs/configuration.md").read_text()
    missing = [
        name
        for name in settings_names()
        if f"`{name}`" not in page or f"`REPLICATOR_{name.upper()}`" not in page
    ]
    assert missing == []


def test_the_page_on_exit_codes_names_every_code():
    """Each exit code of an error class has a row."""
    from replicator import errors

    classes = [each for each in vars(errors).values() if isinstance(each, type)]
    codes = {each.exit_code for each in classes if issubclass(each, errors.ReplicatorError)}
    rows = re.findall(r"^\| (\d+) \|", (TOP / "docs/exit-codes.md").read_text(), re.MULTILINE)
    assert codes <= {int(row) for row in rows}


# --------------------------------------------------------------------------- recovery


def merge_segments(directory, first, last, *, gone):
    """Merge the segments of these transactions, as retention does; some of them are deleted."""
    objects = sorted((directory / "wal").iterdir())[first - 1 : last]
    merge = merge_all(
        [
            MergeSource(path.name, first + at, first + at, path.read_bytes)
            for at, path in enumerate(objects)
        ],
        created_by="tests",
        level=3,
    )
    assert (merge.summary.header.first_txid, merge.summary.trailer.last_txid) == (first, last)
    target = directory / f"merged/1/{first:016x}-{last:016x}.wal.zst"
    target.parent.mkdir(parents=True)
    target.write_bytes(merge.body)
    for txid in gone:
        objects[txid - first].unlink()


@pytest.mark.skipif(
    not shutil.which("zstd") or not shutil.which("sqlite3"),
    reason="the recovery by hand needs the tools zstd and sqlite3",
)
@pytest.mark.parametrize("sealed", [False, True])
def test_the_recovery_by_hand_in_the_guide_works(tmp_path, sealed):
    """With two snapshots, a merge that begins before the second, its sources partly
    pruned, and segments after it, the script arrives at the newest state. Seals do not disturb
    it."""
    database, store = tmp_path / "app.db", tmp_path / "store"
    store.mkdir()
    key = tmp_path / "integrity.key"
    key.write_text("k" * 64)
    config = replicator.SqliteReplicatorConfig(
        db_path=database, url=f"file://{store}", integrity_key=key if sealed else None
    )
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE t (x)")
    with replicator.SqliteReplicator(config) as running:
        for number in range(8):
            connection.execute("INSERT INTO t VALUES (?)", (number,))
            running.flush(snapshot=number == 4)
    connection.close()
    merge_segments(store / "app.db", 3, 8, gone=range(4, 7))
    (script,) = docs.blocks(TOP / "docs/guide/restore.md", "bash")
    subprocess.run(["bash", "-euc", script.text], cwd=store / "app.db", check=True)
    restored = sqlite3.connect(store / "app.db" / "restored.db")
    assert [row for (row,) in restored.execute("SELECT x FROM t")] == list(range(8))
    restored.close()
    assert len(list((store / "app.db" / "snapshots").iterdir())) == 2
