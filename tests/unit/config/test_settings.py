"""replicator.config.settings: a config that exists can work, an error names the setting."""

import dataclasses
import math
from pathlib import Path

import pytest

from replicator.config.settings import SETTINGS, SqliteReplicatorConfig
from replicator.errors import ConfigError
from replicator.model import Retention
from tests.helpers.errors import raises

SETTING_NAMES = [field.name for field in dataclasses.fields(SqliteReplicatorConfig) if field.init]


def make(**settings):
    return SqliteReplicatorConfig(**{"db_path": "/data/app.db", "bucket": "b"} | settings)


def test_defaults_need_a_database_and_a_bucket_only():
    """The prefix is the file's name, the cache a hidden directory next to the database."""
    config = make()
    assert config.database == Path("/data/app.db")
    assert config.cache == Path("/data/.app.db-replicator")
    assert config.address.url == "s3://b/app.db"
    assert config.sync_interval == 1.0
    assert config.max_cache_bytes == 1 << 30


def test_a_config_is_frozen_and_can_be_varied():
    """Settings do not change under a running replicator."""
    config = make()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.bucket = "c"
    assert dataclasses.replace(config, bucket="c").address.bucket == "c"
    assert config == make()


def test_symlinks_are_resolved_once(tmp_path):
    """SQLite names the WAL after the real file, so prefix and cache follow it too."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "app.db").touch()
    (tmp_path / "link.db").symlink_to(tmp_path / "real" / "app.db")
    config = make(db_path=tmp_path / "link.db", cache_dir=tmp_path / "c")
    (tmp_path / "link.db").unlink()
    assert config.database == tmp_path / "real" / "app.db"
    assert config.address.prefix == "app.db"
    assert config.cache == tmp_path / "c"


def test_relative_paths_and_the_home_directory(tmp_path, monkeypatch):
    """A later chdir must not move the database or its cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    config = make(db_path="ü ber.db", cache_dir="~/cache")
    assert config.database == tmp_path / "ü ber.db"
    assert config.cache == Path("/home/me/cache")
    assert make(db_path="~/x.db").database == Path("/home/me/x.db")


@pytest.mark.parametrize(("settings", "url"), [
    ({"bucket": "b", "prefix": "/a/b/"}, "s3://b/a/b"),
    ({"bucket": "", "url": "s3://b/a/b"}, "s3://b/a/b"),
    ({"bucket": "", "url": "s3://b"}, "s3://b/app.db"),
    ({"bucket": "", "url": "s3://b/", "prefix": "p"}, "s3://b/p"),
    ({"bucket": "", "url": "s3://b/p", "prefix": "p/"}, "s3://b/p"),
    ({"bucket": "", "url": "file:///backup"}, "file:///backup/app.db"),
    ({"bucket": "", "url": "file:///backup", "prefix": "x"}, "file:///backup/x"),
])  # fmt: skip
def test_bucket_and_url_say_the_same(settings, url):
    """Two spellings of one location."""
    assert make(**settings).address.url == url


def test_the_address_carries_how_to_reach_it():
    """Endpoint, region, profile and checksum mode belong to the store."""
    address = make(
        endpoint_url="http://127.0.0.1:9000", region="eu", profile="p", checksums="when_supported"
    ).address
    assert (address.endpoint_url, address.region) == ("http://127.0.0.1:9000", "eu")
    assert (address.profile, address.checksums) == ("p", "when_supported")


@pytest.mark.parametrize(("settings", "message"), [
    ({"bucket": ""}, "neither bucket nor url is set"),
    ({"url": "s3://b"}, "both a bucket and a url are set"),
    ({"bucket": "b/p"}, "bucket: 'b/p' is not the name of a bucket"),
    ({"bucket": "", "url": "gs://b"}, "s3://"),
    ({"bucket": "", "url": "s3://b/p", "prefix": "q"}, "prefix: 'q' is set, but the url has"),
    ({"prefix": "a//b"}, "prefix: 'a//b' cannot"),
    ({"prefix": "a/../b"}, "prefix: 'a/../b' cannot"),
    ({"prefix": "a\nb"}, "prefix: "),
    ({"endpoint_url": "127.0.0.1:9000"}, "endpoint"),
    ({"checksums": "never"}, "checksums: 'never' is not when_required or when_supported"),
    ({"db_path": ""}, "db_path: '' is not"),
    ({"db_path": ":memory:"}, "db_path: ':memory:' is not"),
    ({"db_path": "file:x.db?mode=memory"}, "db_path: "),
    ({"db_path": "a\0b"}, "db_path: "),
    ({"cache_dir": ""}, "cache_dir: is empty"),
    ({"max_cache_bytes": 1000}, "max_cache_bytes: 1000 is out of bounds; it must be at least"),
    ({"max_cache_bytes": 2e9}, "max_cache_bytes: 2000000000.0 is not a whole number"),
    ({"segment_max_bytes": 2 << 30}, "segment_max_bytes: 2147483648 is out of bounds; it must"),
    ({"compression_level": 0}, "compression_level: 0 is out of bounds; it must be from 1 to 22"),
    ({"compression_level": True}, "compression_level: True is not a whole number"),
    ({"sync_interval": -1}, "sync_interval: -1 is out of bounds"),
    ({"sync_interval": math.nan}, "sync_interval: nan is out of bounds"),
    ({"sync_interval": "1s"}, "sync_interval: '1s' is not a number"),
    ({"sync_interval": True}, "sync_interval: True is not a number"),
    ({"auto_restore": "no"}, "auto_restore: 'no' is not true or false"),
    ({"bucket": 7}, "bucket: 7 is not text"),
    ({"cache_dir": 7}, "cache_dir: 7 is not a path"),
    ({"poll_interval": 0}, "poll_interval: 0 is out of bounds; it must be from 10ms to 1h"),
])  # fmt: skip
def test_what_cannot_work_is_named(settings, message):
    """The message begins with the setting, or names it."""
    with pytest.raises(ConfigError) as caught:
        make(**settings)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2
    name, colon, _ = message.partition(": ")
    if colon:
        assert caught.value.setting == name


def test_access_points_are_buckets():
    """Their names are ARNs and contain slashes."""
    arn = "arn:aws:s3:eu-west-1:123456789012:accesspoint/mine"
    assert make(bucket=arn).bucket == arn


# environment


def test_every_setting_has_a_variable():
    """REPLICATOR_ and the name; text becomes a value of the type of the setting."""
    values = {
        "db_path": ("/data/x.db", "/data/x.db"), "bucket": ("b", "b"), "prefix": ("p", "p"),
        "url": ("", ""), "endpoint_url": ("http://h:1", "http://h:1"), "region": ("r", "r"),
        "profile": ("me", "me"), "checksums": ("when_supported", "when_supported"),
        "integrity_key": ("", None),
        "cache_dir": ("/c", "/c"), "max_cache_bytes": ("2GiB", 2 << 30),
        "auto_restore": ("yes", True), "take_over": ("0", False),
        "switch_in_use": ("yes", True),
            "restore": ("on", True), "standby": ("off", False),
            "expect": ("new", "new"), "wait_store": ("2m", 120.0),
        "allow_unsafe_store": ("on", True), "sync_interval": ("500ms", 0.5),
        "upload_burst": ("3", 3),
            "poll_interval": ("2", 2.0), "busy_timeout": ("10s", 10.0),
        "snapshot_interval": ("1h30m", 5400.0), "snapshot_ratio": ("0.25", 0.25),
        "snapshot_max_age": ("2d", 172800.0), "segment_max_bytes": ("8 MiB", 8 << 20),
        "compression_level": ("9", 9),
        "drill_interval": ("24h", 86400.0),
        "drill_bandwidth": ("5MiB", 5 << 20),
        "drill_scratch": ("/scratch", "/scratch"),
        "drill_extension": ("/lib/theirs.so", "/lib/theirs.so"),
        "keep": ("no", False), "keep_every_transaction": ("2d", 172800.0),
        "keep_hourly": ("off", 0.0), "keep_daily": ("forever", math.inf),
        "keep_weekly": ("100d", 8640000.0), "keep_monthly": ("Forever", math.inf),
        "keep_snapshots": ("4", 4),
    }  # fmt: skip
    assert set(values) == set(SETTING_NAMES)
    environ = {SETTINGS[name].variable: text for name, (text, _) in values.items()}
    config = SqliteReplicatorConfig.from_env(environ | {"OTHER": "x"})
    assert {name: getattr(config, name) for name in SETTING_NAMES} == {
        name: value for name, (_, value) in values.items()
    }


def test_the_process_environment_is_the_default(monkeypatch):
    """Arguments take precedence; an empty variable is not set."""
    monkeypatch.setenv("REPLICATOR_DB_PATH", "/data/env.db")
    monkeypatch.setenv("REPLICATOR_BUCKET", "env")
    monkeypatch.setenv("REPLICATOR_SYNC_INTERVAL", "")
    config = SqliteReplicatorConfig.from_env(bucket="given")
    assert (config.bucket, config.database.name, config.sync_interval) == ("given", "env.db", 1.0)


def test_a_bad_variable_is_named():
    """The user looks for REPLICATOR_…, not for a field of a class."""
    for name, text in (
        ("sync_interval", "soon"),
        ("max_cache_bytes", "much"),
        ("auto_restore", "maybe"),
        ("compression_level", "3.5"),
        ("snapshot_ratio", "half"),
    ):
        with pytest.raises(ConfigError, match=f"^{SETTINGS[name].variable}: .*{text}"):
            SqliteReplicatorConfig.from_env(
                {SETTINGS[name].variable: text, "REPLICATOR_DB_PATH": "x", "REPLICATOR_BUCKET": "b"}
            )


def test_no_database_is_an_error_with_a_hint():
    """The hint has both ways to name it."""
    with raises(ConfigError, setting="db_path") as caught:
        SqliteReplicatorConfig.from_env({})
    assert "REPLICATOR_DB_PATH" in caught.value.hint


def test_every_number_has_bounds():
    """A number without bounds is one that cannot be wrong, which none is."""
    fields = dataclasses.fields(SqliteReplicatorConfig)
    numbers = [field.name for field in fields if field.type in ("int", "float")]
    assert len(numbers) == 19
    for name in numbers:
        for value in (-1, SETTINGS[name].least - 0.001, SETTINGS[name].most * 2 + 1, math.nan):
            if value != math.inf:
                with pytest.raises(ConfigError) as caught:
                    make(**{name: value})
                assert caught.value.setting == name


def test_every_default_is_a_value_of_its_unit():
    """It passes its own check, and its text is read as the same value."""
    for each in SETTINGS.values():
        if each.name != "db_path":
            each.check(each.default)
        if each.default_text and not each.shown:
            assert each.read(each.default_text) == each.default


def test_every_field_is_a_row_of_the_table():
    """No setting is outside of it."""
    assert list(SETTINGS) == SETTING_NAMES
    assert all(each.help and each.section for each in SETTINGS.values())


def test_the_rules_of_retention_have_one_default():
    """The library and the settings agree."""
    assert make().retention == Retention()


def test_the_root_directory_is_no_database():
    """It has no name that a file could have."""
    with raises(ConfigError, setting="db_path"):
        SqliteReplicatorConfig(db_path="/", bucket="b")
