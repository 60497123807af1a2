"""System checks: each identifier has settings that it reports, and settings that it accepts."""

import re
import sqlite3
from pathlib import Path

import pytest
from django.core.checks import run_checks
from django.core.checks.registry import registry

from replicator.contrib.django import checks, deployment, restore_point, sqlite
from replicator.contrib.django.replicated import replicated
from tests.helpers.django_project import configured

TOP = Path(__file__).parents[3]
CACHE = {"default": {"BACKEND": checks.DATABASE_CACHE, "LOCATION": "cache"}}


def found(function=checks.check_settings):
    """The identifiers that a check reports; each message has a hint."""
    messages = list(function())
    assert [message for message in messages if not message.hint] == []
    return {message.id.removeprefix("replicator.") for message in messages}


def options(**changed):
    """DATABASES of which the options of the helper are changed."""
    return lambda project: {
        "DATABASES": {"default": sqlite(project.path, OPTIONS=changed)},
    }


def entries(**given):
    return lambda project: {"REPLICATOR": given}


def same_twice(**changed):
    """Two aliases that share what is not changed."""

    def make(project):
        first = {"url": f"file://{project.bucket}", "prefix": "shop"}
        other = {"other": sqlite(project.directory / "other.db")}
        return {
            "DATABASES": project.settings()["DATABASES"] | other,
            "REPLICATOR": {"default": first, "other": first | changed},
        }

    return make


SETTINGS = {
    "E001": entries(nowhere={}),
    "E002": lambda project: {"DATABASES": {"default": {"ENGINE": "django.db.backends.mysql"}}},
    "E003": entries(default={"url": "file:///x", "sync_interval": -1}),
    "E004": entries(default={}),
    "E005": same_twice(),
    "E007": lambda project: {
        "DATABASES": project.settings()["DATABASES"] | {"then": restore_point("other", at="1")}
    },
    "W002": lambda project: {"DATABASES": {"default": sqlite("shop.db")}},
    "W003": options(transaction_mode="DEFERRED"),
    "W004": options(init_command="PRAGMA journal_mode = 'DELETE'"),
    "W005": options(init_command="PRAGMA journal_mode=wal; PRAGMA synchronous(OFF)"),
}


def test_the_settings_of_the_guide_are_accepted(project):
    """Without a message, also where two databases are replicated."""
    assert found() == set()
    with configured(**same_twice(prefix="other")(project)):
        assert found() == set()
    with configured(REPLICATOR={}):
        assert found() == set()


@pytest.mark.parametrize("identifier", SETTINGS)
def test_each_setting_that_cannot_work_is_reported(project, identifier):
    """By its identifier alone."""
    with configured(**project.settings() | SETTINGS[identifier](project)):
        assert found() == {identifier}


@pytest.mark.parametrize(
    "given", [{"bukket": "x", "url": "file:///x"}, {"url": "file:///x", "bucket": "y"}]
)
def test_an_entry_that_cannot_be_read_is_an_error(project, given):
    """A typing error, and two destinations."""
    with configured(**project.settings() | {"REPLICATOR": {"default": given}}):
        assert found() == {"E003"}


def test_an_entry_counts_more_than_the_environment(project, monkeypatch):
    """As in the server that `manage.py replicator run` starts, which has the settings of one
    database in its environment: another destination, or one prefix for two databases."""
    monkeypatch.setenv("REPLICATOR_BUCKET", "backups")
    monkeypatch.setenv("REPLICATOR_PREFIX", "shop.db")
    monkeypatch.setenv("REPLICATOR_CACHE_DIR", str(project.directory / "cache"))
    assert found() == set()
    url = {"url": f"file://{project.bucket}"}
    other = {"other": sqlite(project.directory / "other.db")}
    made = project.settings() | {"REPLICATOR": {"default": url, "other": url}}
    made["DATABASES"] |= other
    with configured(**made):
        assert found() == set()
        assert replicated()["other"].config().address.prefix == "other.db"


def test_a_database_in_memory_is_an_error(project):
    """It has no log to follow."""
    memory = {"DATABASES": {"default": sqlite(":memory:")}}
    with configured(**project.settings() | memory):
        assert found() == {"E003"}


def test_a_project_that_replicates_nothing_is_warned(project, settings_without):
    """The application is installed, and REPLICATOR is forgotten."""
    with settings_without("REPLICATOR"):
        assert found() == {"W001"}


def test_a_network_file_system_is_an_error(project, tmp_path):
    """By the mount table of the kernel."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"36 35 98:0 / {tmp_path} rw,noatime - nfs4 server:/share rw\n")
    (message,) = checks.check_place(project.directory, mounts)
    assert message.id == "replicator.E006"
    assert list(checks.check_place(project.directory)) == []


# ----------------------------------------------------------------------- the deployment


def deployed():
    return found(checks.check_deployment)


def test_a_deployment_of_the_guide_has_no_warning(project):
    """The bucket is empty, and the database does not exist yet; sessions are pointed out."""
    assert deployed() == {"I001"}
    assert found(checks.check_archives) == set()


DEPLOYMENTS = {
    "W010": {"DEBUG": True},
    "W012": {"CACHES": CACHE},
    "W013": {"SESSION_SAVE_EVERY_REQUEST": True},
}


@pytest.mark.parametrize("identifier", DEPLOYMENTS)
def test_each_setting_that_a_server_should_not_have_is_reported(project, identifier):
    """By `check --deploy`."""
    with configured(**project.settings(), **DEPLOYMENTS[identifier]):
        assert deployed() - {"I001"} == {identifier}


def test_the_name_of_every_new_project_is_reported(project):
    """Two projects with one bucket would have one prefix."""
    entry = {"default": sqlite(project.directory / "db.sqlite3")}
    with configured(**project.settings() | {"DATABASES": entry}):
        assert deployed() == {"W011", "I001"}


def test_a_rollback_journal_is_reported(project):
    """The journal mode of the file, whatever the settings are; the look does not change it."""
    with sqlite3.connect(project.path) as connection:
        connection.execute("CREATE TABLE t (x)")
    with configured(**project.settings() | options(init_command="")(project)):
        assert deployed() == {"W014", "I001"}


def test_a_bucket_that_does_not_answer_is_reported(project):
    """The check of the hosts cannot be made, and the deployment does not fail."""
    with project.away():
        assert found(checks.check_archives) == {"W015"}


@pytest.mark.parametrize(
    ("hosts", "turns"),
    [
        ([], []),
        (["a", "a"], []),
        (["a", "b", "b"], []),  # a move to another machine
        (["a", "b", "a"], ["a", "b"]),
        (["a", "b", "c", "b"], ["a", "b", "c"]),
        (["a", "", "a"], []),
    ],
)
def test_hosts_that_take_turns_are_found(hosts, turns):
    """A host that comes back after another one."""
    events = [{"host": host and f"process 7 on {host}"} for host in hosts]
    assert deployment.alternating(events) == turns


def test_hosts_that_take_turns_are_reported():
    """W016, with the hosts."""
    events = [{"host": f"process 7 on {host}"} for host in "aba"]
    (message,) = deployment.turns({"events": events, "url": "s3://x/y"})
    assert message.id == "replicator.W016"


# -------------------------------------------------------------------------- all of them


def test_django_runs_the_checks(project):
    """They are registered under a tag of their own; those of a deployment only with it."""
    with configured(**project.settings() | {"REPLICATOR": {"default": {}}}):
        every = run_checks(tags=["replicator"], include_deployment_checks=True)
        assert {message.id for message in every} == {"replicator.E004", "replicator.I001"}
    deployment_only = {checks.check_deployment, checks.check_archives}
    assert deployment_only <= registry.deployment_checks
    assert checks.check_settings in registry.registered_checks


def test_the_guide_lists_each_identifier():
    """The table of docs/guide/django.md has those of the code, once."""
    code = "".join(path.read_text() for path in (TOP / "replicator/contrib/django").glob("*.py"))
    page = (TOP / "docs/guide/django.md").read_text()
    listed = re.findall(r"^\| `replicator\.(\w\d+)` \|", page, re.MULTILINE)
    assert sorted(listed) == sorted(set(re.findall(r'"replicator\.([EWI]\d{3})"', code)))
