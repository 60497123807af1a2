"""``replicator restore --all``, a directory as the bucket: its options, its output, its codes."""

import json

import pytest

from replicator.cli import restore_all as restore_all_command
from replicator.errors import StoreUnavailable
from replicator.recovery.set_report import RestoredDatabase, SetMeter
from replicator.store.directory import DirectoryStore
from tests.helpers.bucket import commit_ms
from tests.helpers.tenants import Tenants, files_below

NAMES = ("app.db", "tenants/[a].db", "tenants/b.db")


@pytest.fixture
def stored_tenants(source_directory, bucket_dir):
    """Three databases in the bucket."""
    return Tenants(source_directory, DirectoryStore(bucket_dir), *NAMES)


@pytest.fixture
def restore(run, bucket_url, tmp_path, stored_tenants):
    """``restore(*options)`` runs the command into the directory ``into``."""
    return lambda *options: run(
        "restore", "--url", bucket_url, "--all", "--into", tmp_path / "into", *options
    )


def test_the_report_for_people(restore, stored_tenants, tmp_path):
    """The sums, then each database that failed, with its code; progress is on stderr."""
    stored_tenants.spoil("tenants/[a].db")
    code, out, err = restore()
    assert code == 3
    assert out.startswith(f"restored 2 databases into {tmp_path}/into\n")
    (failed,) = [line for line in out.splitlines() if line.startswith("failed  tenants")]
    assert failed.startswith("failed  tenants/[a].db: ")
    assert failed.endswith(", exit code 3)")
    assert "restoring: 0 of 2 databases" in err
    assert files_below(tmp_path / "into") == ["app.db", "tenants/b.db"]
    code, out, _ = restore()
    assert "complete    2 databases, left alone" in out


def test_the_report_for_programs(restore):
    """One document on stdout, one line for each outcome on stderr."""
    code, out, err = restore("--json")
    report = json.loads(out)
    assert (code, report["exit_code"], report["counts"]) == (0, 0, {"restored": 3})
    assert [each["name"] for each in report["databases"]] == list(NAMES)
    told = [json.loads(line)["progress"] for line in err.splitlines()]
    assert sorted(each["ended"]["name"] for each in told if each["ended"]) == sorted(NAMES)


def test_one_time_and_a_choice(restore, stored_tenants, tmp_path):
    """--timestamp and --only; one that began later is named, and the exit code is 0."""
    (tmp_path / "late").mkdir()
    late = Tenants(tmp_path / "late", stored_tenants.store, when=lambda txid: commit_ms(txid + 100))
    late.add("late.db")
    code, out, _ = restore("--timestamp", "2023-11-14T22:13:45Z", "--only", "*.db")
    assert code == 0
    assert "moment      2023-11-14T22:13:45" in out
    assert "not there   1 database, which began later: late.db" in out
    assert files_below(tmp_path / "into") == ["app.db"]


def test_a_name_of_pins_is_shown(restore, stored_tenants):
    """In place of a time; databases without that name fail."""
    code, out, _ = restore("--at", "release")
    assert "moment      the name release" in out
    assert (code, "failed      3 databases" in out) == (2, True)


def test_a_dry_run_lists_the_plans(restore, tmp_path):
    """Each database with its transaction and size, and the disk space; nothing is written."""
    code, out, _ = restore("--dry-run")
    assert (code, (tmp_path / "into").exists()) == (0, False)
    assert out.startswith(f"would restore 3 databases into {tmp_path}/into\n")
    assert all(name in out for name in NAMES)
    assert "disk space" in out


def test_the_file_has_the_bucket(run, stored_tenants, bucket_url, tmp_path):
    """--config, with a setting of the file replaced on the command line."""
    (tmp_path / "r.toml").write_text('url = "file:///gone"\n[[database]]\npath = "app.db"\n')
    options = ("--config", tmp_path / "r.toml", "--all", "--into", tmp_path / "into")
    assert run("restore", *options)[0] == 2
    assert run("restore", "--url", bucket_url, *options)[0] == 0
    assert files_below(tmp_path / "into") == ["app.db"]


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        (("--all",), "into"),
        (("--all", "--into", "d", "--output", "x"), "output"),
        (("--all", "--into", "d", "--txid", "3"), "txid"),
        (("--all", "--into", "d", "--at", "before-deploy", "--timestamp", "now"), "at"),
        (("--all", "--into", "d", "--at", "3"), "at"),
        (("--all", "--into", "d", "--if-missing"), "if-missing"),
        (("--into", "d"), "into"),
        (("--only", "*"), "only"),
        (("--config", "f"), "config"),
        (("--all", "--into", "d", "--only", "nothing/*"), "only"),
    ],
)
def test_options_that_exclude_each_other(run, bucket_url, stored_tenants, options, setting):
    """A usage error names the option; nothing is restored."""
    code, _, err = run("restore", "--url", bucket_url, *options, "--json")
    error = json.loads(err.splitlines()[-1])
    assert (code, error["setting"]) == (2, setting)


def test_a_variable_with_a_file_does_not_disturb_one_database(
    run, bucket_url, stored_tenants, tmp_path, monkeypatch
):
    """Containers set it for every command."""
    monkeypatch.setenv("REPLICATOR_CONFIG", str(tmp_path / "missing.toml"))
    output = tmp_path / "one.db"
    assert run("restore", "--url", bucket_url, "-p", "app.db", "-o", output)[0] == 0


def test_an_empty_bucket(run, bucket_url, tmp_path):
    """Exit code 9, or 0 as before a first start."""
    options = ("restore", "--url", bucket_url, "--all", "--into", tmp_path / "into")
    assert run(*options)[0] == 9
    assert run(*options, "--if-backup-exists", "--json")[:2] == (
        0,
        '{"counts": {}, "databases": [], "code": "no_backup"}\n',
    )


def test_lines_of_progress_are_few(capsys):
    """At most two a second between the news; a reason is printed once."""
    listen = restore_all_command.lines(restore_all_command._short_line, iter(range(9)).__next__)
    meter = SetMeter(listen)
    for reason in ("away", "away", "slow"):
        meter.trouble(StoreUnavailable(reason))
    assert capsys.readouterr().err.splitlines() == ["away; trying again", "slow; trying again"]


def test_on_a_terminal_there_is_a_bar(capsys, monkeypatch):
    """It counts databases; a failure and a reason stay as lines, each once, with nothing in them
    that acts on the terminal."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with restore_all_command.shown(as_json=False) as listen:
        meter = SetMeter(listen)
        meter.begin("restore", 3)
        meter.passed(
            RestoredDatabase("a\x1b[2J", "", "failed", error=StoreUnavailable("no answer"))
        )
        meter.trouble(StoreUnavailable("slow"))
        meter.trouble(StoreUnavailable("slow"))
        meter.passed(RestoredDatabase("b", "", "restored"))
    err = capsys.readouterr().err
    assert "failed: a\\x1b[2J: no answer" in err
    assert err.count("slow; trying again") == 1


def test_a_hostile_name_does_not_act_on_the_terminal(restore, stored_tenants):
    """Its characters are escaped, for people and in the lines of progress."""
    stored_tenants.add("x\n\x1b[2J\u202e.db")
    code, out, err = restore()
    assert code == 2
    assert "\x1b" not in out + err
    assert "\u202e" not in out + err
    assert [line for line in out.splitlines() if line.startswith("failed")] != []
