"""Databases that a pattern names come back on a new machine, because the bucket names them."""

import shutil
import threading

import pytest

from replicator.config.file import ConfigFile
from replicator.errors import RefusedError, ReplicatorError
from replicator.sidecar.fleet import Databases, Fleet, SidecarTimes
from replicator.store.directory import DirectoryStore
from tests.helpers.replication import LONG, App, image_of, wait_for

TIMES = SidecarTimes(final_flush=LONG, check=0.01, search=0.01, retry=0.01)
TENANTS = ("a.db", "b.db", "more/c.db")


@pytest.fixture
def pattern_file(tmp_path, bucket_dir):
    """A file with one pattern; ``top`` are more settings."""

    def write(pattern="tenants/**/*.db", top=""):
        (tmp_path / "r.toml").write_text(
            f'url = "file://{bucket_dir}"\nprefix = "shop"\nsync_interval = 0\n{top}\n'
            f'[[database]]\npath = "{pattern}"\n'
        )
        return ConfigFile.load(tmp_path / "r.toml", {})

    return write


@pytest.fixture
def lost(pattern_file, tmp_path):
    """The images of three tenants whose machine was lost."""
    for name in TENANTS:
        (tmp_path / "tenants" / name).parent.mkdir(parents=True, exist_ok=True)
        with App(tmp_path / "tenants" / name) as app:
            app.insert(3)
    with fleet_of(pattern_file()) as fleet:
        fleet.start()
        fleet.wait_ready([], threading.Event().wait)
        assert fleet.flush() == []
    images = {name: image_of(tmp_path / "tenants" / name) for name in TENANTS}
    shutil.rmtree(tmp_path / "tenants")
    return images


def fleet_of(file):
    return Fleet(Databases.in_file(file), TIMES, hurry=lambda: False)


def here(tmp_path):
    return {
        name: (tmp_path / "tenants" / name).read_bytes()
        for name in TENANTS
        if (tmp_path / "tenants" / name).exists()
    }


def follows(fleet, number):
    """Waits until that many members continue their archives."""
    wait_for(lambda: [m.replicator.status().txid for m in fleet.members] == [1] * number)


def test_all_tenants_come_back_before_a_command(pattern_file, lost, tmp_path):
    """Each continues its archive."""
    with fleet_of(pattern_file()) as fleet:
        restored = fleet.prepare(around_command=True)
        assert len(restored) == len(fleet.members) == 3
        assert here(tmp_path) == lost
        fleet.start()
        fleet.wait_ready(restored, threading.Event().wait)
        follows(fleet, 3)


def test_all_tenants_come_back_with_the_setting(pattern_file, lost, tmp_path, bucket_dir):
    """The sidecar starts meanwhile. A bucket that is away is searched again."""
    bucket_dir.rename(tmp_path / "away")
    with fleet_of(pattern_file(top="auto_restore = true")) as fleet:
        assert fleet.prepare(around_command=False) == []
        fleet.start()
        (tmp_path / "away").rename(bucket_dir)
        follows(fleet, 3)
    assert here(tmp_path) == lost


def test_a_plain_sidecar_restores_none(pattern_file, lost, tmp_path):
    """It was not asked to."""
    with fleet_of(pattern_file()) as fleet:
        fleet.start()
        wait_for(lambda: not fleet._patterns.is_alive())
    assert here(tmp_path) == {}


def test_only_what_the_pattern_names_and_the_machine_lacks(pattern_file, lost, tmp_path, caplog):
    """A tenant that was removed here stays away, its cache shows that; one that is here stays."""
    caplog.set_level("INFO")
    with fleet_of(pattern_file("tenants/*.db")) as fleet:
        assert len(fleet.prepare(around_command=True)) == 2
        fleet.start()
        fleet.wait_ready([], threading.Event().wait)
    for left in (tmp_path / "tenants").glob("a.db*"):
        left.unlink()
    with fleet_of(pattern_file("tenants/*.db")) as fleet:
        assert fleet.prepare(around_command=True) == []
        assert [member.config.database.name for member in fleet.members] == ["b.db"]
    assert "(removed_here)" in caplog.text
    assert not (tmp_path / "tenants" / "more").exists()


def test_names_that_lead_elsewhere_are_not_followed(pattern_file, lost, tmp_path, bucket_dir):
    """The bucket may hold any name."""
    source = DirectoryStore(bucket_dir)
    for info in list(source.list("shop/a.db/")):
        for name in ("shop/.hidden.db/", "shop/x.db-wal/", "shop/%2e%2e/"):
            key = info.key.replace("shop/a.db/", name)
            source.put(key, source.get(info.key), metadata=source.head(info.key).metadata)
    with fleet_of(pattern_file("tenants/*")) as fleet:
        names = {member.config.database.name for member in fleet.prepare(around_command=True)}
    assert {"a.db", "b.db"} <= names <= {"a.db", "b.db", "%2e%2e"}
    (entry,) = pattern_file("tenants/*").entries
    for name in ("..", "../x", "a/../b", "", "/etc/x", "a//b", "a\nb", ".x", "x.db-wal", "a/b"):
        assert not entry.pattern.names(name)


@pytest.mark.parametrize(
    ("pattern", "named", "not_named"),
    [
        ("t/*.db", ["a.db"], ["b/a.db", "a.txt", ".a.db"]),
        ("t/**/*.db", ["a.db", "b/a.db", "b/c/a.db"], [".b/a.db", "a"]),
        ("t/**", ["a", "b/a"], [".a"]),
        ("t/[ab]/x?.db", ["a/x1.db"], ["c/x1.db", "a/x.db"]),
        ("*/data.db", ["t/data.db"], ["data.db", "t/u/data.db"]),
    ],
)
def test_a_pattern_names_what_a_search_would_find(pattern_file, pattern, named, not_named):
    """As the search of the file system does."""
    (entry,) = pattern_file(pattern).entries
    assert all(entry.pattern.names(name) for name in named)
    assert not any(entry.pattern.names(name) for name in not_named)


def test_a_bucket_that_is_away_stops_a_command(pattern_file, lost, tmp_path, bucket_dir):
    """The databases that it may hold are not known."""
    bucket_dir.rename(tmp_path / "away")
    with fleet_of(pattern_file()) as fleet, pytest.raises(ReplicatorError):
        fleet.prepare(around_command=True)


def test_one_that_cannot_be_restored(pattern_file, lost, tmp_path, bucket_dir, caplog):
    """The others come back; a command does not start."""
    store = DirectoryStore(bucket_dir)
    for info in list(store.list("shop/a.db/snapshots/")):
        store.delete(info.key)
    with fleet_of(pattern_file(top="auto_restore = true")) as fleet:
        fleet.start()
        follows(fleet, 2)
    assert "a.db could not be restored" in caplog.text
    with fleet_of(pattern_file()) as fleet, pytest.raises(ReplicatorError):
        fleet.prepare(around_command=True)


def test_a_tenant_that_begins_anew_is_refused(pattern_file, lost, tmp_path):
    """The application made it while the sidecar runs, over a history: only that one is refused."""
    with fleet_of(pattern_file()) as fleet:
        fleet.prepare(around_command=False)
        fleet.start()
        (tmp_path / "tenants").mkdir()
        for name in ("a.db", "new.db"):
            with App(tmp_path / "tenants" / name) as app:
                app.insert()
        wait_for(lambda: len(fleet.members) == 2)
        by_name = {member.config.database.name: member for member in fleet.members}
        wait_for(lambda: by_name["a.db"].replicator.failed or by_name["a.db"].error)
        error = by_name["a.db"].replicator.failed or by_name["a.db"].error
        assert isinstance(error, RefusedError)
        wait_for(lambda: by_name["new.db"].replicator.status().durable_txid)
