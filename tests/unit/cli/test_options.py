"""replicator.cli.options: groups of options, from the table of settings to one frozen value."""

import dataclasses

import pytest
import typer

from replicator.cli import options
from replicator.cli.options import Location, Point, RetentionRules, RunSettings, StoreSettings
from replicator.config.settings import SETTINGS
from replicator.config.table import Where
from replicator.errors import ConfigError
from replicator.model import Retention


def called(command, *args):
    """The values that ``command`` receives for a command line."""
    app = typer.Typer()
    app.callback()(lambda: None)
    app.command("x")(options.expanded(command))
    return typer.main.get_command(app).main(["x", *args], "replicator", standalone_mode=False)


def test_a_group_becomes_its_options_and_its_options_become_the_group():
    """One frozen value, with the group's own default for an option that is not set."""

    def command(*, location: Location, point: Point, other: str = "x"):
        return location, point, other

    location, point, other = called(command, "-b", "name", "--txid", "7", "--other", "y")
    assert location == Location(bucket="name")
    assert (point, other) == (Point(txid=7), "y")
    with pytest.raises(dataclasses.FrozenInstanceError):
        location.bucket = "another"


def test_the_environment_sets_an_option_too(monkeypatch):
    """And the command line takes precedence."""

    def command(*, location: Location):
        return location

    monkeypatch.setenv("REPLICATOR_BUCKET", "of-the-environment")
    monkeypatch.setenv("REPLICATOR_REGION", "eu")
    assert called(command) == Location(bucket="of-the-environment", region="eu")
    assert called(command, "--bucket", "b").bucket == "b"


def test_run_has_an_option_for_each_setting_that_may_stand_there():
    """And no other; a switch that is on by default can be turned off."""
    names = [name for name, each in SETTINGS.items() if Where.RUN in each.where]
    assert list(RunSettings.annotations()) == names

    def command(*, settings: RunSettings):
        return settings.given

    assert called(command) == {}
    assert called(command, "--no-keep", "--take-over", "--keep-hourly", "off") == {
        "keep": False,
        "take_over": True,
        "keep_hourly": 0.0,
    }


def test_some_commands_take_some_settings():
    """The rules of retention; the way to the store and the cache."""
    assert list(RetentionRules.annotations()) == [
        "keep_every_transaction",
        "keep_hourly",
        "keep_daily",
        "keep_weekly",
        "keep_monthly",
        "keep_snapshots",
    ]
    assert RetentionRules({"keep_daily": 5.0}).rules == Retention(daily=5.0)
    assert set(StoreSettings.annotations()) == {
        *("bucket", "prefix", "url", "endpoint_url", "region", "profile"),
        *("integrity_key", "cache_dir"),
    }


@pytest.mark.parametrize("location", [Location(), Location(bucket="b", url="s3://b")])
def test_a_location_is_a_bucket_or_a_url(location):
    """Exactly one of the two."""
    with pytest.raises(ConfigError, match="either a bucket or a url"):
        _ = location.address
    assert Location(bucket="b", prefix="p").address == Location(url="s3://b/p").address


def test_every_option_has_a_variable_unless_it_changes_the_bucket():
    """REPLICATOR_ and its name."""
    from replicator.cli import application

    found = {
        option.opts[0]
        for command in typer.main.get_command(application()).commands.values()
        for option in command.params
        if option.param_type_name == "option" and not option.envvar
    }
    assert found == {"--yes", "--all", "--note", "--name", "--move"}
