"""replicator.inspect.doctor: each verdict, and the remedy that goes with it."""

import sqlite3

from replicator import SqliteReplicatorConfig
from replicator.errors import AccessDenied
from replicator.inspect.doctor import (
    check_database,
    check_file_system,
    check_space,
    check_sqlite,
    check_store,
    doctor,
)
from replicator.store.address import StoreAddress
from replicator.store.memory import MemoryStore
from replicator.system.host import FileSystem
from tests.helpers.odd_stores import InventingStore, RewritingStore

TARGET = StoreAddress("s3", bucket="b", prefix="app.db")


def verdicts(checks):
    return {check.name: check.verdict for check in checks}


def test_a_library_with_the_wal_reset_bug_is_a_warning():
    """Named with its version and with the versions that are free of it."""
    check = check_sqlite((3, 40, 1))
    assert check.verdict == "warn"
    assert "3.40.1" in check.detail
    assert "3.51.3" in check.remedy
    assert check_sqlite((3, 51, 3)).verdict == "ok"


def test_a_database_in_wal_mode_is_fine(closed_db):
    """And its page size is told."""
    check, _ = check_database(closed_db)
    assert (check.verdict, check.detail) == ("ok", "WAL mode, pages of 4,096 bytes")


def test_another_journal_mode_is_a_warning(tmp_path):
    """The replicator will switch it over, and says so beforehand."""
    path = tmp_path / "old.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    check, _ = check_database(path)
    assert check.verdict == "warn"
    assert "journal_mode=WAL" in check.remedy


def test_a_missing_database_is_a_warning(tmp_path):
    """It may come later."""
    check, _ = check_database(tmp_path / "none.db")
    assert (check.verdict, "does not exist" in check.detail) == ("warn", True)


def test_a_file_that_is_no_database_fails(tmp_path):
    """Whatever it is, it cannot be followed."""
    path = tmp_path / "noise.db"
    path.write_bytes(b"\x01" * 8192)
    check, _ = check_database(path)
    assert (check.verdict, "not a SQLite database" in check.detail) == ("fail", True)


def test_a_database_this_user_cannot_write_fails(closed_db, monkeypatch):
    """A reader of a WAL database must be able to lock it."""
    monkeypatch.setattr("os.access", lambda path, mode: False)
    check, _ = check_database(closed_db)
    assert (check.verdict, "not writable" in check.detail) == ("fail", True)
    assert "lock" in check.remedy


def test_a_network_file_system_fails():
    """WAL mode needs shared memory on one host."""
    assert check_file_system(FileSystem("nfs4", "/srv")).verdict == "fail"
    assert check_file_system(FileSystem("ext4", "/")).detail == "ext4 on /"
    assert check_file_system(FileSystem("unknown", "")).detail == "unknown"


def test_less_space_than_the_cache_may_take_is_a_warning(tmp_path):
    """Asked of the nearest directory that exists."""
    cache = tmp_path / "not" / "yet" / "made"
    assert check_space(cache, 1).verdict == "ok"
    check = check_space(cache, 1 << 60)
    assert (check.verdict, "--max-cache-bytes" in check.remedy) == ("warn", True)


def test_a_store_that_keeps_its_promises_is_fine_and_left_clean():
    """Reachable, and one winner of sixteen; nothing stays in the bucket."""
    store = MemoryStore()
    assert verdicts(check_store(TARGET, store)) == {
        "bucket": "ok",
        "read back": "ok",
        "append once": "ok",
        "large objects": "ok",
    }
    assert list(store.list("")) == []


class Lying(MemoryStore):
    """Ignores If-None-Match, as some servers do."""

    def put(self, key, body, *, metadata=None, if_absent=True):
        super().put(key, body, metadata=metadata, if_absent=False)


def test_a_store_that_lets_two_writers_win_fails():
    """The one promise the log stands on."""
    *_, last = check_store(TARGET, Lying())
    assert (last.name, last.verdict) == ("append once", "fail")
    assert last.remedy


class Forgetful(MemoryStore):
    """Keeps no metadata, as localbucket."""

    def put(self, key, body, *, metadata=None, if_absent=True):
        super().put(key, body, if_absent=if_absent)


def test_a_store_without_metadata_is_warned_about_and_checked_to_the_end():
    """Replication works there; the other checks still run."""
    found = verdicts(check_store(TARGET, Forgetful()))
    assert found["read back"] == "warn"
    assert list(found) == ["bucket", "read back", "append once", "large objects"]
    assert set(found.values()) == {"ok", "warn"}


def test_a_store_that_rewrites_keys_fails():
    """A restore lists the archive, and would not find it."""
    *_, last = check_store(TARGET, RewritingStore(str.upper))
    assert (last.name, last.verdict) == ("read back", "fail")
    assert "--prefix" in last.remedy


def test_a_store_that_lists_other_sizes_fails():
    """The figures of every report come from the listing."""
    *_, last = check_store(TARGET, InventingStore(lambda size: size * 2))
    assert (last.name, last.verdict) == ("read back", "fail")


class Replacing(MemoryStore):
    """Lets a completed upload take the place of an object that is there."""

    def complete_upload(self, key, upload_id, parts, *, if_absent=True):
        super().complete_upload(key, upload_id, parts, if_absent=False)


def test_a_store_that_replaces_large_objects_is_warned_about():
    """It is safe for one writer, so it is a warning; what could happen is said."""
    *_, last = check_store(TARGET, Replacing())
    assert (last.name, last.verdict) == ("large objects", "warn")
    assert "huge transaction" in last.remedy


class Crowded(MemoryStore):
    """Respects an object that is there, but not two uploads that end at the same time."""

    def __init__(self):
        super().__init__()
        self.completions = 0

    def complete_upload(self, key, upload_id, parts, *, if_absent=True):
        self.completions += 1
        super().complete_upload(key, upload_id, parts, if_absent=self.completions == 1)


def test_a_store_whose_racing_uploads_all_win_is_warned_about():
    """As SeaweedFS 4.48 does."""
    *_, last = check_store(TARGET, Crowded())
    assert (last.name, last.verdict) == ("large objects", "warn")
    assert "16 winners" in last.detail


class Closed(MemoryStore):
    """Refuses every request."""

    def list(self, prefix, *, start_after=""):
        raise AccessDenied("list: 403")

    def put(self, key, body, *, metadata=None, if_absent=True):
        raise AccessDenied("put: 403")


def test_a_refusal_is_told_with_its_hint_and_ends_the_checks():
    """What cannot be reached is not raced for."""
    (only,) = check_store(TARGET, Closed())
    assert (only.name, only.verdict) == ("bucket", "fail")
    assert "403" in only.detail
    assert "access key" in only.remedy


def test_doctor_asks_everything_once(closed_db, tmp_path):
    """All checks in one go, against a directory as the store."""
    (tmp_path / "store").mkdir()
    config = SqliteReplicatorConfig(db_path=closed_db, url=f"file://{tmp_path}/store")
    assert [check.name for check in doctor(config)] == [
        "sqlite library",
        "database",
        "file system",
        "disk space",
        "bucket",
        "read back",
        "append once",
        "large objects",
    ]
