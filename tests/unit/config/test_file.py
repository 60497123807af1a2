"""One file for several databases: precedence, locations, and errors that name the position."""

import os

import pytest

from replicator.config.file import ConfigFile, Search
from replicator.errors import ConfigError
from tests.helpers.errors import raises

A = "[[database]]\npath = 'a.db'"


@pytest.fixture
def write(tmp_path):
    """Writes the file and reads it, with an environment of its own."""

    def write(text, environ=None, **given):
        file = tmp_path / "replicator.toml"
        file.write_text(text)
        return ConfigFile.load(file, environ or {}, **given)

    return write


def locations(file):
    return {config.database.name: config.address.url for config in file.configs()}


def test_defaults_hold_for_every_database_and_an_entry_goes_before_them(write):
    """Text is read as in the environment; numbers and switches are themselves."""
    file = write("""
        bucket = "backups"
        sync_interval = "2s"
        max_cache_bytes = "64MiB"
        keep_hourly = "off"
        auto_restore = true
        compression_level = 5
        [[database]]
        path = "a.db"
        [[database]]
        path = "b.db"
        sync_interval = 0.5
        auto_restore = "no"
        """)
    a, b = file.configs()
    assert (a.sync_interval, b.sync_interval) == (2.0, 0.5)
    assert (a.auto_restore, b.auto_restore) == (True, False)
    assert (a.max_cache_bytes, a.keep_hourly, b.compression_level) == (64 << 20, 0.0, 5)
    assert locations(file) == {"a.db": "s3://backups/a.db", "b.db": "s3://backups/b.db"}


def test_the_command_line_goes_first_then_the_environment(write):
    """command line > environment > entry > defaults of the file."""
    text = """
        bucket = "of-the-file"
        sync_interval = "1s"
        snapshot_interval = "1s"
        busy_timeout = "1s"
        [[database]]
        path = "a.db"
        sync_interval = "2s"
        snapshot_interval = "2s"
        busy_timeout = "2s"
        """
    environ = {"REPLICATOR_SYNC_INTERVAL": "3s", "REPLICATOR_SNAPSHOT_INTERVAL": "3s"}
    (config,) = write(text, environ, snapshot_interval=4.0).configs()
    assert (config.busy_timeout, config.sync_interval, config.snapshot_interval) == (2, 3, 4)


@pytest.mark.parametrize(
    ("top", "entry", "given", "location"),
    [
        ('bucket = "b"', "", {}, "s3://b/a.db"),
        ('bucket = "b"\nprefix = "/shop/"', "", {}, "s3://b/shop/a.db"),
        ('url = "s3://b/shop/"', "", {}, "s3://b/shop/a.db"),
        ('url = "s3://b"', "", {}, "s3://b/a.db"),
        ('bucket = "b"\nprefix = "shop"', 'prefix = "own"', {}, "s3://b/own"),
        ('url = "s3://b/shop"', 'prefix = "own"', {}, "s3://b/own"),
        ('bucket = "b"\nprefix = "shop"', 'bucket = "c"', {}, "s3://c/shop/a.db"),
        ('bucket = "b"\nprefix = "shop"', 'url = "s3://c/own"', {}, "s3://c/own"),
        ('url = "s3://b/shop"', 'bucket = "c"', {}, "s3://c/a.db"),
        ('bucket = "b"', 'prefix = "own"', {"bucket": "c"}, "s3://c/own"),
        ('bucket = "b"', 'prefix = "own"', {"prefix": "all"}, "s3://b/all/a.db"),
        ('bucket = "b"', 'url = "s3://c/own"', {"url": "s3://d/all"}, "s3://d/all/a.db"),
        ('url = "file:///x"', "", {}, "file:///x/a.db"),
        ('url = "file:///x"\nprefix = "shop"', "", {}, "file:///x/shop/a.db"),
    ],
)
def test_where_a_database_goes(write, top, entry, given, location):
    """A shared setting is the parent of the locations; an entry sets the full location."""
    file = write(f'{top}\n[[database]]\npath = "a.db"\n{entry}', **given)
    assert locations(file) == {"a.db": location}


def test_paths_are_relative_to_the_file(write, tmp_path):
    """Wherever the sidecar is started."""
    text = """
        url = "file:///bucket"
        drill_scratch = "scratch"
        [[database]]
        path = "data/a.db"
        cache_dir = "cache"
        """
    (config,) = write(text).configs()
    assert config.database == tmp_path / "data" / "a.db"
    assert config.cache == tmp_path / "cache"
    assert config.drill_scratch == str(tmp_path / "scratch")


def test_a_pattern_names_what_is_there_now(write, tmp_path):
    """Without the side files of SQLite, directories and repeated databases."""
    for name in ("a.db", "b.db", "b.db-wal", "c.db-journal", "other.txt"):
        (tmp_path / name).touch()
    (tmp_path / "dir.db").mkdir()
    (tmp_path / "link.db").symlink_to("a.db")
    file = write("""
        bucket = "b"
        [[database]]
        path = "*.db*"
        sync_interval = "9s"
        [[database]]
        path = "a.db"
        sync_interval = "1s"
        """)
    assert file.has_patterns
    assert [(c.database.name, c.sync_interval) for c in file.configs()] == [
        ("a.db", 1.0),
        ("b.db", 9.0),
    ]
    search = Search(file)
    assert len(search.look()[0]) == 2
    assert search.look() == ([], [])
    (tmp_path / "later.db").touch()
    found, clashes = search.look()
    assert [config.database.name for config in found] == ["later.db"]
    assert not clashes


def test_a_pattern_over_directories_keeps_files_of_one_name_apart(write, tmp_path):
    """The name is the path below the fixed part of the pattern."""
    for tenant in ("one", "two"):
        (tmp_path / "tenants" / tenant).mkdir(parents=True)
        (tmp_path / "tenants" / tenant / "app.db").touch()
    file = write("""
        bucket = "b"
        prefix = "shop"
        [[database]]
        path = "tenants/*/app.db"
        """)
    assert sorted(config.address.prefix for config in file.configs()) == [
        "shop/one/app.db",
        "shop/two/app.db",
    ]


def test_a_prefix_of_a_pattern_is_common_to_its_databases(write, tmp_path):
    """It applies to several, so each gets a prefix below it."""
    (tmp_path / "a.db").touch()
    file = write('bucket = "b"\nprefix = "x"\n[[database]]\npath = "*.db"\nprefix = "own"')
    assert locations(file) == {"a.db": "s3://b/own/a.db"}


def test_two_databases_in_one_location_are_refused_by_name(write, tmp_path):
    """Both are named: which of them is wrong, only a person knows."""
    file = write("""
        bucket = "b"
        [[database]]
        path = "x/app.db"
        [[database]]
        path = "y/app.db"
        """)
    with pytest.raises(ConfigError, match=r"database 2 .*/y/app\.db and .*/x/app\.db") as caught:
        file.configs()
    assert caught.value.code == "location_shared"
    assert "prefix" in caught.value.hint


def test_two_databases_in_one_cache_are_refused(write):
    """A cache belongs to one database."""
    text = 'bucket = "b"\n' + "".join(
        f'[[database]]\npath = "{name}.db"\ncache_dir = "cache"\n' for name in "ab"
    )
    with raises(ConfigError, "location_shared"):
        write(text).configs()


def test_a_database_is_named_once(write):
    """Whatever its names are."""
    text = 'bucket = "b"\n[[database]]\npath = "a.db"\n[[database]]\npath = "./x/../a.db"\n'
    with pytest.raises(ConfigError) as caught:
        write(text).configs()
    assert caught.value.code == "database_repeated"


def test_what_clashes_later_is_left_out_and_said(write, tmp_path):
    """The databases that are replicated already keep their locations."""
    (tmp_path / "x").mkdir()
    file = write("""
        bucket = "b"
        [[database]]
        path = "app.db"
        [[database]]
        path = "x/*.db"
        """)
    search = Search(file)
    assert [config.database.name for config in search.look()[0]] == ["app.db"]
    for name in ("app.db", "new.db"):
        (tmp_path / "x" / name).touch()
    found, (clash,) = search.look()
    assert [config.database.name for config in found] == ["new.db"]
    assert "x/app.db" in str(clash)
    assert search.look() == ([], [])  # it is reported once


@pytest.mark.parametrize(
    ("text", "where", "setting", "code"),
    [
        ("nonsense", "replicator.toml: is not TOML", "", "not_toml"),
        ('bucket = "b"', "replicator.toml: names no database", "", "config"),
        ('database = "a.db"', "replicator.toml: database: is not a list", "", "config"),
        ("[[database]]\nbucket = 'b'", "database 1: path: is missing", "path", "config"),
        ("[[database]]\npath = 1", "database 1: path: is missing", "path", "config"),
        (f"bukket = 'b'\n{A}", "replicator.toml: bukket", "bukket", "unknown_setting"),
        (
            f"bucket = 'b'\n{A}\nsync_intervall = '1s'",
            "database 1 (a.db): sync_intervall",
            "sync_intervall",
            "unknown_setting",
        ),
        (f"db_path = 'x'\n{A}", "replicator.toml: db_path", "db_path", "unknown_setting"),
        (
            f"sync_interval = 'soon'\n{A}",
            "replicator.toml: sync_interval: 'soon'",
            "sync_interval",
            "invalid_value",
        ),
        (
            f"{A}\nmax_cache_bytes = '1 parsec'",
            "database 1 (a.db): max_cache_bytes: '1 parsec' is not a size",
            "max_cache_bytes",
            "invalid_value",
        ),
        (f"{A}\nkeep = 1", "keep: 1 is not true or false", "keep", "invalid_value"),
        (
            f"{A}\nsync_interval = true",
            "sync_interval: True is not a number",
            "sync_interval",
            "invalid_value",
        ),
        (f"{A}\nkeep_snapshots = 'x'", "keep_snapshots: 'x'", "keep_snapshots", "invalid_value"),
        (f"{A}\nbucket = 7", "bucket: 7 is not text", "bucket", "invalid_value"),
        (A, "database 1 (a.db): neither bucket nor url is set", "bucket", "config"),
        (
            f"bucket = 'b'\npoll_interval = 0\n{A}",
            "replicator.toml: poll_interval: 0 is out of bounds",
            "poll_interval",
            "out_of_bounds",
        ),
        (
            f"bucket = 'b'\n{A}\npoll_interval = '2h'",
            "database 1 (a.db): poll_interval: 7200.0 is out of bounds",
            "poll_interval",
            "out_of_bounds",
        ),
        (f"cache_dir = 'x'\n{A}", "replicator.toml: cache_dir", "cache_dir", "not_shareable"),
        (
            "[[database]]\npath = '*.db'\ncache_dir = 'x'",
            "database 1 (*.db): cache_dir",
            "cache_dir",
            "not_shareable",
        ),
    ],
)
def test_an_error_says_where_it_is(write, text, where, setting, code):
    """The message names file, entry and key; the error carries the key and a code."""
    with pytest.raises(ConfigError) as caught:
        write(text).configs()
    assert where in str(caught.value)
    assert (caught.value.setting, caught.value.code) == (setting, code)


def test_a_misspelt_setting_is_guessed(write):
    """The hint names the most similar setting."""
    with pytest.raises(ConfigError) as caught:
        write("snapshot_intervall = '1h'\n[[database]]\npath = 'a.db'")
    assert caught.value.hint == "did you mean snapshot_interval?"


def test_a_cache_for_all_is_refused_from_outside_too(write):
    """One directory cannot be the cache of several databases."""
    with raises(ConfigError, "not_shareable", setting="cache_dir"):
        write('bucket = "b"\n[[database]]\npath = "a.db"', {"REPLICATOR_CACHE_DIR": "/x"}).configs()


def test_a_database_from_outside_is_refused(write):
    """Each database has an entry; one variable cannot be the path of several."""
    with pytest.raises(ConfigError) as caught:
        write(f'bucket = "b"\n{A}', {"REPLICATOR_DB_PATH": "x.db"})
    assert (caught.value.setting, caught.value.code) == ("db_path", "not_shareable")


def test_a_file_that_cannot_be_read_is_said(tmp_path):
    """No file, or one that is not text."""
    with raises(ConfigError, "file_unreadable"):
        ConfigFile.load(tmp_path / "none.toml", {})
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with raises(ConfigError, "not_toml"):
        ConfigFile.load(tmp_path / "bytes.toml", {})


def test_a_home_directory_is_understood(write, monkeypatch):
    """As in a shell."""
    monkeypatch.setenv("HOME", "/home/of-a-user")
    (config,) = write('bucket = "b"\n[[database]]\npath = "~/a.db"').configs()
    assert os.fspath(config.database) == "/home/of-a-user/a.db"


def test_a_url_of_another_kind_is_no_path(write):
    """The error names the position in the file."""
    with raises(ConfigError, "not_a_database_path", setting="path") as caught:
        write("bucket = 'b'\n[[database]]\npath = 'postgres://host/app'")
    assert "database 1 (postgres://host/app)" in str(caught.value)
